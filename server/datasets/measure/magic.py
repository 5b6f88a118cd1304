"""What a file is by its first bytes; its name decides nothing but whether text is a table."""

import pickletools
from pathlib import Path
from typing import Literal

from server.datasets.measure.reject import forbid

Kind = Literal["parquet", "arrays", "image_folder", "plain"]

_READ: tuple[tuple[bytes, Kind], ...] = (
    (b"PAR1", "parquet"),
    (b"\x93NUMPY", "arrays"),
    (b"\x89PNG\r\n\x1a\n", "image_folder"),
    (b"\xff\xd8\xff", "image_folder"),
)
_REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"\x80\x02", "a pickle"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"\x80\x06", "a pickle"),
    (b"PK\x03\x04", "a ZIP archive, as .pt, .npz and .keras files are"),
    (b"PK\x05\x06", "a ZIP archive"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstandard"),
    (b"\x04\x22\x4d\x18", "compressed with lz4"),
    (b"\x78\x9c", "compressed with zlib"),
    (b"\x78\xda", "compressed with zlib"),
    (b"ZF", "a joblib file"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90", "a program"),
    (b"ARROW1", "an Arrow file; Parquet is read"),
    (b"ORC", "ORC; Parquet is read"),
    (b"Obj\x01", "Avro; Parquet is read"),
    (b"SQLite format 3\x00", "a SQLite database"),
    (b"GGUF", "a GGUF model"),
    (b"GIF8", "GIF; PNG and JPEG are read"),
    (b"RIFF", "a RIFF file; PNG and JPEG are read"),
    (b"II*\x00", "TIFF; PNG and JPEG are read"),
    (b"MM\x00*", "TIFF; PNG and JPEG are read"),
    (b"%PDF-", "PDF"),
)


def kind_of(path: str, location: Path) -> Kind:
    """The family of formats. Raises Rejected with code format_not_allowed."""
    with location.open("rb") as file:
        head = file.read(65_536)
    for magic, name in _REFUSED:
        if head.startswith(magic) and not (magic in (b"ZF", b"ORC", b"BZh", b"GGUF", b"RIFF", b"GIF8") and _is_text(head)):
            forbid(f"The file is {name}. CSV, Parquet, UTF-8 text, PNG, JPEG, .npy and .safetensors are accepted.", path)
    for magic, kind in _READ:
        if head.startswith(magic):
            return kind
    if _is_old_pickle(head):
        forbid("The file is a pickle. CSV, Parquet, UTF-8 text, PNG, JPEG, .npy and .safetensors are accepted.", path)
    return "plain"


def _is_text(head: bytes) -> bool:
    """Letters that begin some formats also begin some tables."""
    return not any(byte < 9 or 13 < byte < 32 for byte in head) and b"\xff" not in head


def _is_old_pickle(head: bytes) -> bool:
    """Protocols 0 and 1 have no magic: they are pickles when they read as one that names something to call."""
    calls = False
    try:
        for opcode, argument, _ in pickletools.genops(head):
            if opcode.name in ("GLOBAL", "INST"):
                module, _, name = str(argument).partition(" ")
                calls = calls or (module.replace(".", "").isidentifier() and name.replace(".", "").isidentifier())
            if opcode.name == "STOP":
                return calls
    except Exception:  # whatever is no pickle fails in its own way
        return False
    return False
