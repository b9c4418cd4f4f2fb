"""Pictures: original | reconstruction | nearest private image, sheets of samples, and defenses side by side.

Written with Pillow alone, so that the evaluation step can draw without loading a plotting library. Small
images are enlarged by whole factors without smoothing: what is blurred in a picture is blurred in the data.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from inversionbench.core.files import atomic

ROWS = ("original", "reconstruction", "nearest")
UNSTARTED = "unstarted"  # (k,), not 0 where a reconstruction never started and the image is a placeholder
SIDE, GAP, MARGIN = 64, 4, 118  # pixels: smallest shown side, space between images, least room for the row labels
PAPER, INK, BLANK = (255, 255, 255), (40, 40, 40), (225, 225, 225)


def save_gallery(path: Path, arrays: Mapping[str, np.ndarray], limit: int = 8) -> None:
    """Rows original, reconstruction, nearest of one cell; arrays: uint8 (k, channels, height, width)."""
    rows = {name: arrays[name] for name in ROWS if name in arrays}
    save(path, labelled(rows, limit, {"reconstruction": arrays.get(UNSTARTED, ())}))


def save_sheet(path: Path, images: Any, columns: int = 8) -> None:
    """A sheet of samples. images: float (n, channels, height, width) in [0, 1], tensor or array."""
    pixels = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images)
    if pixels.ndim != 4:
        raise ValueError(f"a sheet needs images (n, channels, height, width), got shape {pixels.shape}")
    bytes_ = np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)
    rows = [strip(bytes_[i : i + columns]) for i in range(0, len(bytes_), columns)]
    save(path, _stack(rows))


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a `gallery.npz`: those of `ROWS` that it holds, uint8 (k, channels, height, width), and
    `UNSTARTED`."""
    with np.load(path, allow_pickle=False) as data:
        return {name: data[name] for name in (*ROWS, UNSTARTED) if name in data}


def labelled(rows: Mapping[str, np.ndarray], limit: int = 8, unstarted: Mapping[str, Any] | None = None) -> Image.Image:
    """One labelled strip per entry, below each other; labels may have several lines. unstarted: label -> (k,), where
    words stand in the place of an image."""
    strips = [_without(strip(images[:limit]), (unstarted or {}).get(label, ())[:limit], len(images[:limit]))
              for label, images in rows.items()]
    margin = max(MARGIN, *(16 + ceil(_font().getlength(line)) for label in rows for line in label.split("\n")))
    sheet = _stack(strips, margin)
    draw = ImageDraw.Draw(sheet)
    top = 0
    for label, part in zip(rows, strips, strict=True):
        draw.text((margin - 8, top + part.height / 2), label, INK, _font(), anchor="rm", align="right")
        top += part.height + GAP
    return sheet


def _without(row: Image.Image, unstarted: Any, k: int) -> Image.Image:
    """A strip of k images with a blank in the place of each that is none."""
    draw, width = ImageDraw.Draw(row), (row.width + GAP) // k - GAP
    for i in np.flatnonzero(unstarted).tolist():
        left = i * (width + GAP)
        draw.rectangle((left, 0, left + width - 1, row.height), BLANK)
        draw.text((left + width / 2, row.height / 2), "not\nstarted", INK, _font(), anchor="mm", align="center")
    return row


def strip(images: np.ndarray) -> Image.Image:
    """Images beside each other; uint8 (k, channels, height, width) with 1 or 3 channels.

    >>> strip(np.zeros((3, 1, 16, 16), np.uint8)).size
    (200, 64)
    """
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[1] not in (1, 3):
        raise ValueError(f"expected uint8 images (k, 1 or 3, height, width), got {images.dtype} {images.shape}")
    factor = max(1, SIDE // max(images.shape[2:]))
    large = images.repeat(factor, axis=2).repeat(factor, axis=3).transpose(0, 2, 3, 1)
    large = large.repeat(3, axis=3) if large.shape[3] == 1 else large
    k, height, width = large.shape[:3]
    sheet = np.full((height, k * width + max(k - 1, 0) * GAP, 3), 255, np.uint8)
    for i, image in enumerate(large):
        sheet[:, i * (width + GAP) : i * (width + GAP) + width] = image
    return Image.fromarray(sheet)


def png(image: Image.Image) -> bytes:
    """PNG bytes; the same for the same pixels."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def save(path: Path, image: Image.Image) -> None:
    with atomic(path) as part:
        part.write_bytes(png(image))


def _stack(strips: Sequence[Image.Image], margin: int = 0) -> Image.Image:
    height = sum(s.height for s in strips) + GAP * max(len(strips) - 1, 0)
    sheet = Image.new("RGB", (margin + max((s.width for s in strips), default=1), max(height, 1)), PAPER)
    top = 0
    for part in strips:
        sheet.paste(part, (margin, top))
        top += part.height + GAP
    return sheet


def _font() -> Any:
    return ImageFont.load_default(size=13)
