"""Every code that a problem document can carry: its status, and what to do about it. The published catalogue.

Codes are never given another meaning; new ones may be added, so readers go by the status when they do not know a code.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class ProblemKind:
    """One row of the catalogue."""

    code: str
    status: int
    hint: str
    """What it means and what to do."""


_ALL = (
    ProblemKind("ambiguous_length", 400, "The body's length is given twice; send Content-Length or chunks, once."),
    ProblemKind("bad_frame", 400, "The report is not a sequence of whole, undamaged frames."),
    ProblemKind("bad_request", 400, "The request is not HTTP/1.1 that can be read."),
    ProblemKind("idempotency_key_invalid", 400, "Idempotency-Key is 1 to 255 visible ASCII characters, once."),
    ProblemKind("json_bom", 400, "Send UTF-8 without a byte order mark."),
    ProblemKind("json_duplicate_key", 400, "An object holds the same key twice."),
    ProblemKind("json_invalid", 400, "The body is not JSON."),
    ProblemKind("json_invalid_unicode", 400, "A string holds half of a surrogate pair."),
    ProblemKind("json_non_finite", 400, "NaN and Infinity are not JSON; send null or the string."),
    ProblemKind("json_not_utf8", 400, "The body is not UTF-8."),
    ProblemKind("json_nul", 400, "A string holds U+0000."),
    ProblemKind("json_number_out_of_range", 400, "A number fits neither 64-bit integers nor 64-bit floats."),
    ProblemKind("json_too_deep", 400, "The body is nested deeper than 32 levels."),
    ProblemKind("json_too_many_values", 400, "The body holds too many values."),
    ProblemKind("unauthenticated", 401, "Send a valid, unexpired key as `Authorization: Bearer stk_…`."),
    ProblemKind("insufficient_scope", 403, "The key may not do this; make one with the scope that the detail names."),
    ProblemKind("wrong_credential_kind", 403, "API keys act for users and workers, attempt tokens for their own attempt alone."),
    ProblemKind("wrong_project", 403, "The key belongs to another project than the request names."),
    ProblemKind("checkpoint_expired", 404, "Retention has removed the checkpoint; the list shows which are left."),
    ProblemKind("not_found", 404, "There is no such thing, or this key may not see it."),
    ProblemKind("unknown_path", 404, "There is no such key in a spec; the findings suggest the nearest."),
    ProblemKind("method_not_allowed", 405, "The resource does not have that method; the Allow header lists those it has."),
    ProblemKind("request_timeout", 408, "The body did not arrive in time; send it again."),
    ProblemKind("blob_missing", 409, "Upload the blob that the detail names, then report again; nothing was stored."),
    ProblemKind("blobs_missing", 409, "Upload the blobs that the findings name, then ask again."),
    ProblemKind("checkpoint_corrupt", 409, "The stored checkpoint is damaged; use another."),
    ProblemKind("conflict", 409, "Another request did the same at this moment; look again, then repeat."),
    ProblemKind("frames_missing", 409, "Report the frames after the number in the detail before finishing."),
    ProblemKind(
        "idempotency_in_progress", 409, "The first request under this key is just being answered; repeat it for its answer."
    ),
    ProblemKind("illegal_transition", 409, "The job's state does not allow this."),
    ProblemKind("name_taken", 409, "A job of this name was made from another spec."),
    ProblemKind("own_key", 409, "A key cannot revoke itself."),
    ProblemKind("stale_attempt", 409, "The attempt is over or was superseded; its processes must stop."),
    ProblemKind("upload_offset", 409, "Continue the upload at the offset in the Upload-Offset header."),
    ProblemKind("version_mismatch", 412, "The job has changed since; read it again and repeat the edit."),
    ProblemKind("body_too_large", 413, "The body is larger than this resource takes."),
    ProblemKind("quota_exceeded", 413, "The project may not store that much; remove data sets or checkpoints."),
    ProblemKind("uri_too_long", 414, "The URI is longer than 8,192 bytes."),
    ProblemKind(
        "format_not_allowed", 415, "This kind of file is not supported, under any name; send CSV, Parquet, npy, text or images."
    ),
    ProblemKind("unsupported_content_encoding", 415, "Send the body uncompressed."),
    ProblemKind("unsupported_media_type", 415, "Send the media type that the detail names, in UTF-8."),
    ProblemKind("range_not_satisfiable", 416, "The range lies outside the file."),
    ProblemKind("host_not_allowed", 421, "The server does not answer for that host; see STOKER_ALLOWED_HOSTS."),
    ProblemKind("dataset_rejected", 422, "The files cannot be read as a data set; the detail says where."),
    ProblemKind("digest_mismatch", 422, "The bytes do not hash to their name."),
    ProblemKind("estimate_exceeds_limit", 422, "The job is larger than any machine could run; the findings give the sizes."),
    ProblemKind("file_name_invalid", 422, "A file name is not a plain relative path."),
    ProblemKind("frame_invalid", 422, "A frame's contents do not fit its kind."),
    ProblemKind("gate_invalid", 422, "A requirement reads `validation/accuracy>=0.95`."),
    ProblemKind("idempotency_key_reused", 422, "The Idempotency-Key was used for another request; take a fresh one."),
    ProblemKind("spec_invalid", 422, "The document does not fit; every finding has its pointer."),
    ProblemKind("validation_failed", 422, "A parameter or body does not fit; every finding has its pointer."),
    ProblemKind("yaml_rejected", 422, "The YAML cannot be read; tags, aliases and repeated keys are not taken."),
    ProblemKind("precondition_required", 428, "Send If-Match with the ETag that the change is based on."),
    ProblemKind("queue_full", 429, "The project has too many waiting jobs; come back after Retry-After."),
    ProblemKind("rate_limited", 429, "Too many requests or wrong keys; come back after Retry-After."),
    ProblemKind("too_many_streams", 429, "The key has too many open streams; close one."),
    ProblemKind("headers_too_large", 431, "More than 100 headers or 32,768 bytes of them."),
    ProblemKind("blob_being_collected", 503, "The bytes are just being removed; send them again in a moment."),
    ProblemKind("blob_unavailable", 503, "The blob store does not answer or lost the bytes; try again later."),
    ProblemKind("busy_measuring", 503, "Too many data sets are being measured; come back after Retry-After."),
    ProblemKind("database_unavailable", 503, "The database does not answer; the same request may be repeated."),
    ProblemKind("overloaded", 503, "Too many requests at once; come back after Retry-After."),
    ProblemKind("read_only", 503, "The database takes no writes at the moment."),
    ProblemKind("server_error", 503, "The server failed on this request; its log has the request id."),
    ProblemKind("storage_full", 507, "The server's storage is full; nothing was stored."),
)

PROBLEMS: dict[str, ProblemKind] = {kind.code: kind for kind in _ALL}
"""By code. Every code has one status."""


def reference() -> Iterator[str]:
    """The catalogue as a Markdown page, in lines."""
    yield "# Problems"
    yield ""
    yield "Every refusal is `application/problem+json` (RFC 9457) with one of these codes. Generated from the code."
    yield ""
    yield "| status | code | what it means and what to do |"
    yield "|---|---|---|"
    for kind in sorted(_ALL, key=lambda k: (k.status, k.code)):
        yield f'| {kind.status} | <a id="{kind.code}"></a>`{kind.code}` | {kind.hint} |'


if __name__ == "__main__":
    print("\n".join(reference()))
