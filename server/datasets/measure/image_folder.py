"""Pictures in one folder per class, PNG or JPEG, each decoded once to know that it is whole."""

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from server.datasets.measure.reject import reject
from stoker.facts import ImageFacts

MAX_PIXELS = 64_000_000


def measure_images(files: Sequence[tuple[str, Path]]) -> ImageFacts:
    """Raises Rejected with the picture that is damaged, too large or not in a folder."""
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    counts: Counter[str] = Counter()
    sizes: set[tuple[int, int]] = set()
    for path, location in files:
        folder, _, name = path.partition("/")
        if not name:
            reject("A picture is not in a folder named after its class.", path)
        counts[folder] += 1
        sizes.add(_size(path, location))
    shared = next(iter(sizes)) if len(sizes) == 1 else (None, None)
    return ImageFacts(counts=dict(sorted(counts.items())), height=shared[1], width=shared[0])


def _size(path: str, location: Path) -> tuple[int, int]:
    try:
        with Image.open(location, formats=("PNG", "JPEG")) as picture:
            size = picture.size
            picture.draft(picture.mode, (1, 1))  # JPEG: parse all of it, compute an eighth of it
            picture.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        reject(f"The picture has more than {MAX_PIXELS} pixels.", path)
    except Exception:  # a decoder's errors are of every class
        reject("The picture is damaged.", path)
    return size
