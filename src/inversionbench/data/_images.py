"""Picture files to arrays: checked formats and sizes, centre crop, antialiased resize."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.data import _tree

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "PPM")  # PPM reads PGM too
PIXELS = 1 << 26  # of one picture file; the largest data set of the survey has 2^20


def decode(
    data: bytes, where: str, size: int, crop: int = 0, mode: str = "RGB", box: tuple[int, ...] | None = None,
    native: tuple[int, int] | None = None,
) -> np.ndarray:
    """One picture file as uint8 (channels, size, size).

    crop: side of the centred square kept before resizing, in pixels of the file (0: the largest square).
    box: this part first (left, top, right, bottom). mode: "RGB" or "L" (grey). native: (width, height) of every picture
    of the set: what is cut out is right for it alone. `where` names the file in errors.
    """
    picture = opened(data, where)
    if native is not None and picture.size != native:
        got = " x ".join(map(str, picture.size))
        raise UserError(f"{where}: {got} pixels, the set has {native[0]} x {native[1]}; it is another version of it")
    if box is not None:
        picture = picture.crop(box)  # type: ignore[arg-type]
    return square(picture.convert(mode), size, crop)


def opened(data: bytes, where: str) -> Image.Image:
    """A decoded picture; anything that is not a whole picture of a known format is a `UserError`."""
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        if picture.width * picture.height > PIXELS:
            raise UserError(f"{where}: {picture.width}x{picture.height} pixels; at most {PIXELS} expected")
        picture.load()
    except UnidentifiedImageError as error:
        raise UserError(f"{where}: not a picture of format {', '.join(FORMATS)}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{where}: cut off or damaged picture ({error})") from error
    if picture.mode.startswith(("I", "F")):  # Pillow would cut these values off at 255 without a word
        raise UserError(f"{where}: more than 8 bits a pixel (mode {picture.mode}); save it with 8")
    return picture


def square(picture: Image.Image, size: int, crop: int = 0) -> np.ndarray:
    """Centred square of side `crop`, resized to uint8 (channels, size, size)."""
    from PIL import Image

    side = min(crop or min(picture.size), *picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    picture = picture.crop((left, top, left + side, top + side))
    if side != size:
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)  # Pillow filters when shrinking
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def fit(images: np.ndarray, size: int) -> np.ndarray:
    """Images (n, channels, side, side) at another size: small ones that grow by at most a quarter are padded
    with black (28 to 32 keeps every pixel as it is), others are resized."""
    from PIL import Image

    side = images.shape[-1]
    if size == side:
        return images
    if side < size <= side * 5 // 4:
        low = (size - side) // 2
        pad = (low, size - side - low)
        return np.pad(images, ((0, 0), (0, 0), pad, pad))
    out = np.empty((*images.shape[:2], size, size), np.uint8)
    for i, image in enumerate(images):
        for channel, plane in enumerate(image):
            small = Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR)
            out[i, channel] = np.asarray(small)
    return out


def files(folder: Path, endings: tuple[str, ...] = (".jpg", ".jpeg", ".png", ".pgm")) -> list[Path]:
    """Picture files below a folder, sorted by their path in it (the same on every machine)."""
    return [path for _, path in _tree.walk(folder, endings)]
