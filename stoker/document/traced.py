"""A spec that notes which of its fields a function reads, so that the function need not run again until one of them changes."""

from collections.abc import Mapping
from typing import Any, cast

from stoker.spec.job import JobSpec

FIELDS: tuple[str, ...] = tuple(JobSpec.model_fields)
"""The fields of a spec, in order; each holds the whole of one family."""
_KNOWN = frozenset(FIELDS)


class TracedSpec:
    """Stands in for a JobSpec: `isinstance` and `match` take it for one.

    Reading a field adds its name to `reads`; anything else that is asked of it counts as reading every field.
    """

    __slots__ = ("_own", "_reads", "_spec")

    def __init__(self, spec: JobSpec, reads: set[str], own: frozenset[str] = frozenset()) -> None:
        self._spec, self._reads, self._own = spec, reads, own

    @property  # type: ignore[misc]  # `isinstance` asks for it
    def __class__(self) -> type:
        return JobSpec

    def __getattr__(self, name: str) -> Any:
        if name not in _KNOWN:
            self._read_all()
        elif name not in self._own:
            self._reads.add(name)
        return getattr(self._spec, name)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> JobSpec:
        """A copy that notes its reads in the same place; what the update brought was not read from the spec."""
        copied = self._spec.model_copy(update=update, deep=deep)
        return traced(copied, self._reads, self._own | frozenset(update or ()))

    def __eq__(self, other: object) -> bool:
        return self._whole() == (other._whole() if type(other) is TracedSpec else other)

    def __hash__(self) -> int:
        return hash(self._whole())

    def __iter__(self) -> Any:
        return iter(self._whole())

    def __repr__(self) -> str:
        return repr(self._whole())

    def __copy__(self) -> JobSpec:
        return self.model_copy()

    def __deepcopy__(self, _: Any) -> JobSpec:
        return self.model_copy(deep=True)

    def _whole(self) -> JobSpec:
        self._read_all()
        return self._spec

    def _read_all(self) -> None:
        self._reads.update(_KNOWN - self._own)


def traced(spec: JobSpec, reads: set[str], own: frozenset[str] = frozenset()) -> JobSpec:
    """The spec as one that adds the names of fields that are read to `reads`."""
    return cast(JobSpec, TracedSpec(spec, reads, own))
