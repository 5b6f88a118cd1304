"""Folders of pictures into arrays."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from stoker.spec.data.source import ImageFolder
from worker.trainer.errors import DataProblem

SUFFIXES = (".png", ".jpg", ".jpeg")


def read_images(spec: ImageFolder, root: Path, files: list[Path]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.str_]]:
    """Values (n, channels, height, width) from 0 to 1, and the folder of each picture."""
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not pictures:
        raise DataProblem(f"data set {spec.dataset}: no PNG or JPEG file in it")
    names = [path.parent.relative_to(root).as_posix() for path in pictures]
    if "." in names:
        raise DataProblem(f"{pictures[names.index('.')].name}: lies in no folder; put pictures in one folder per class")
    first = _read(pictures[0], spec, None)
    values = np.empty((len(pictures), *first.shape), np.float32)
    for i, path in enumerate(pictures):
        values[i] = _read(path, spec, first.shape)
    return values, np.asarray(names)


def _read(path: Path, spec: ImageFolder, expected: tuple[int, ...] | None) -> npt.NDArray[np.float32]:
    try:
        with Image.open(path) as file:
            picture = file.convert("L" if spec.channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataProblem(f"{path.parent.name}/{path.name}: cannot be read as a picture: {error}") from error
    size = (spec.width or picture.width, spec.height or picture.height)
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    values = np.asarray(picture, np.float32).reshape(size[1], size[0], spec.channels).transpose(2, 0, 1) / np.float32(255)
    if expected is not None and values.shape != expected:
        raise DataProblem(
            f"{path.parent.name}/{path.name}: is {size[1]} x {size[0]}, the first picture {expected[1]} x {expected[2]}; "
            "set data.source.height and width"
        )
    return values
