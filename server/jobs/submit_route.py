"""The route of a submit, which calls its dependencies itself.

The framework's solver of dependencies takes about half a millisecond of processor time, as long as all the rest of a submit.
Its handler still serves requests with what it checks: a query, or the name of a project in a header.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from server.deps import Require, get_runtime, project_of
from server.jobs.document import read_document

_submitter = Require("submit")


class SubmitRoute(APIRoute):
    """For an endpoint that takes `request, document, runtime, who, project`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        solved, endpoint = super().get_route_handler(), self.endpoint

        async def handle(request: Request) -> Response:
            if request.scope["query_string"] or "stoker-project" in request.headers:
                return await solved(request)
            document = await read_document(request)  # in the order of the endpoint's parameters: the first refusal is answered
            who = await _submitter(request)
            answer: Response = await endpoint(request, document, get_runtime(request), who, await project_of(request))
            return answer

        return handle
