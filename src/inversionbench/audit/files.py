"""Pictures that a user brings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inversionbench.core.errors import UserError
from inversionbench.models.own import tensors

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def images(path: Path, what: str) -> tuple[Tensor, Tensor | None]:
    """Pictures in [0, 1], float32 (n, c, h, w), and labels int64 (n,) where there are any.

    path: .npz with `x` (uint8, or float in [0, 1]; (n, c, h, w) or (n, h, w, c)) and `y`; a folder of pictures, or of
    one folder of pictures for each class, whose label is the folder's name where that is a number, else its place in
    their order; or one picture.
    """
    if path.suffix == ".npz":
        found = tensors(path, what)
        if "x" not in found:
            raise UserError(f"{what}: {path} has no array 'x': it has {', '.join(found) or 'none'}")
        return _pixels(found["x"], f"{what}: {path}"), _labels(found.get("y"), len(found["x"]), f"{what}: {path}")
    if path.is_file():
        return _read([path], what), None
    if not path.is_dir():
        raise UserError(f"{what}: no such file or folder: {path}")
    folders = sorted(p for p in path.iterdir() if p.is_dir() and p.name[0] != ".")
    if not folders:
        return _read(_pictures(path), what), None
    by_number = all(p.name.isdigit() for p in folders)
    paths, labels = [], []
    for place, folder in enumerate(folders):
        own = _pictures(folder)
        paths += own
        labels += [int(folder.name) if by_number else place] * len(own)
    return _read(paths, what), torch.tensor(labels)


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES and p.name[0] != "." and p.is_file())


def _read(paths: list[Path], what: str) -> Tensor:
    from PIL import Image

    if not paths:
        raise UserError(f"{what}: no pictures ({', '.join(PICTURES)})")
    out = []
    for path in paths:
        try:
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("L" if picture.mode in ("L", "1") else "RGB"))
        except Exception as error:  # damaged pictures fail in many ways
            raise UserError(f"{what}: {path} is no picture that can be read: {error}") from None
        out.append(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
    shapes = {p.shape for p in out}
    if len(shapes) > 1:
        raise UserError(f"{what}: pictures have different sizes or colours: {', '.join(map(str, sorted(shapes)))}")
    return torch.from_numpy(np.stack(out)).float() / 255


def _pixels(x: Tensor, where: str) -> Tensor:
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.permute(0, 3, 1, 2)
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise UserError(f"{where}: x has shape {tuple(x.shape)}, expected (n, 1 or 3, height, width)")
    if x.dtype == torch.uint8:
        return x.float() / 255
    if not x.is_floating_point() or not x.isfinite().all() or float(x.min()) < 0 or float(x.max()) > 1:
        raise UserError(f"{where}: x must be uint8, or numbers in [0, 1] before any normalisation")
    return x.float()


def _labels(y: Tensor | None, n: int, where: str) -> Tensor | None:
    if y is None:
        return None
    if y.shape != (n,) or y.is_floating_point():
        raise UserError(f"{where}: y must be whole numbers of shape ({n},), got {y.dtype} {tuple(y.shape)}")
    return y.long()
