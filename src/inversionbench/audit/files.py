"""What a user brings: a network as code, weights and updates as files of plain tensors, pictures."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inversionbench.core.errors import UserError, suggest

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def network(named: str, weights: Path | None = None) -> nn.Module:
    """The network that `package:factory` or `file.py:factory` makes, with the weights of a file.

    This runs the code that is named and no other: weights are read as tensors, never unpickled.
    """
    where, _, factory = named.rpartition(":")
    if not where or not factory.isidentifier():
        raise UserError(f"--model: expected package:factory or file.py:factory, got '{named}'")
    module = _module(where)
    make = getattr(module, factory, None)
    if make is None:
        known = [name for name in vars(module) if not name.startswith("_")]
        raise UserError(f"--model: {where} has no '{factory}': {suggest(factory, known)}")
    try:
        net = make()
    except TypeError as error:
        raise UserError(f"--model: {named}() wants arguments ({error}); give a function that takes none") from None
    if not isinstance(net, nn.Module):
        raise UserError(f"--model: {named}() returns {type(net).__name__}, expected a torch.nn.Module")
    if weights is not None:
        _fill(net, tensors(weights, "--weights"), weights)
    return net


def _module(where: str) -> Any:
    path = Path(where)
    if path.suffix != ".py":
        sys.path.insert(0, "")
        try:
            return importlib.import_module(where)
        except ImportError as error:
            raise UserError(f"--model: cannot import '{where}': {error}") from None
    if not path.is_file():
        raise UserError(f"--model: no such file: {path}")
    spec = importlib.util.spec_from_file_location(f"audited_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _fill(net: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    own = net.state_dict()
    given = {name.removeprefix("module."): value for name, value in state.items()}
    missing, more = own.keys() - given.keys(), given.keys() - own.keys()
    if missing or more:
        name = min(missing or more)
        kind = "lacks" if missing else "has"
        raise UserError(f"{path}: {kind} '{name}'{', which the network does not have' * (not missing)} "
                        f"({len(missing)} missing, {len(more)} unknown)")  # fmt: skip
    for name, value in given.items():
        if value.shape != own[name].shape:
            raise UserError(f"{path}: {name} has shape {tuple(value.shape)}, the network's {tuple(own[name].shape)}")
        if not value.isfinite().all():
            raise UserError(f"{path}: {name} holds values that are not finite")
    net.load_state_dict(given)


def tensors(path: Path, what: str) -> dict[str, Tensor]:
    """Name -> tensor from .safetensors, .npz, or a state dict that PyTorch reads with `weights_only`."""
    if not path.is_file():
        raise UserError(f"{what}: no such file: {path}")
    try:
        found: Any
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(path)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                found = {name: torch.from_numpy(archive[name]) for name in archive.files}
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except ModuleNotFoundError:
        raise UserError(f"{what}: reading {path} needs the package safetensors: pip install safetensors") from None
    except Exception as error:  # every reader has errors of its own for what is no file of its kind
        said = str(error).partition("\n")[0]
        raise UserError(f"{what}: {path} cannot be read as tensors alone ({said}): save it as .safetensors, .npz or "
                        "torch.save(model.state_dict(), ...)") from None  # fmt: skip
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise UserError(f"{what}: {path} holds no names with tensors")
    return {str(name): value for name, value in found.items()}


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
