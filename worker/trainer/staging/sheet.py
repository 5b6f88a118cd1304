"""Tensors as one file of the safetensors format: the length of a header, the header as JSON, then the bytes of each.

Written here and not by the library, because a file must be writable by a process that may run no PyTorch, piece by piece.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

CODES: dict[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
"""What the format calls the types of torch."""
DTYPES = {code: dtype for dtype, code in CODES.items()}
Body = Callable[[], memoryview]
"""The bytes of one tensor, when they are wanted."""


@dataclass(frozen=True)
class Sheet:
    """A file's header, and where its bytes come from, in the order of the file."""

    header: bytes
    bodies: Sequence[Body]
    bytes: int
    """Of all bodies."""

    @staticmethod
    def of(tensors: Mapping[str, torch.Tensor]) -> "Sheet":
        """Tensors as they will be when they are written: whoever stages them sees to it that they stay as they are."""
        ordered = in_order((name, CODES[t.dtype], tuple(t.shape), t.nbytes) for name, t in tensors.items())
        bodies = [partial(raw, tensors[name]) for name, *_ in ordered]
        return Sheet(header(ordered), bodies, sum(size for *_, size in ordered))


Line = tuple[str, str, tuple[int, ...], int]
"""Name, type, shape and bytes of a tensor."""


def in_order(lines: Iterable[Line]) -> list[Line]:
    """Wide types first, so that each tensor is aligned to its own type; then by name."""
    return sorted(lines, key=lambda line: (-DTYPES[line[1]].itemsize, line[0]))


def header(lines: Iterable[Line], metadata: Mapping[str, str] | None = None) -> bytes:
    """What comes before the bytes of these tensors, which follow one another."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, code, shape, size in lines:
        entries[name] = {"dtype": code, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def raw(tensor: torch.Tensor) -> memoryview:
    """The bytes of a tensor, without a copy where it lies in host memory in one piece."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")
