"""Pretrained weights as declared inputs: looked for in a folder, hashed by us, never fetched.

A file that is missing or has another content makes its metric unavailable; nothing takes its place. The
libraries load whatever lies under the right name without looking, so the hash is checked here before loading.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from inversionbench.metrics.base import Unavailable


@dataclass(frozen=True)
class Weight:
    """One file. `sha256`: the first digits of its hash, as far as they are known (the authors put them into
    the file name). `size`: bytes, approximate where `exact` is not known. `source`: where people get it."""

    name: str
    file: str
    size: str
    sha256: str
    source: str


WEIGHTS = {
    w.name: w
    for w in (
        Weight(
            "alex", "alexnet-owt-7be5be79.pth", "233.1 MiB", "7be5be79", "the torchvision models, AlexNet (ImageNet)"
        ),
        Weight("vgg", "vgg16-397923af.pth", "527.8 MiB", "397923af", "the torchvision models, VGG-16 (ImageNet)"),
        Weight(
            "squeeze",
            "squeezenet1_1-b8a52dc0.pth",
            "4.73 MiB",
            "b8a52dc0",
            "the torchvision models, SqueezeNet 1.1 (ImageNet)",
        ),
        Weight(
            "inception",
            "pt_inception-2015-12-05-6726825d.pth",
            "about 91 MiB",
            "6726825d",
            "release `fid_weights` of the repository mseitzer/pytorch-fid",
        ),
        Weight(
            "dlib_faces",
            "dlib_face_recognition_resnet_model_v1.dat",
            "21.4 MiB",
            "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
            "the package face-recognition-models 0.3.0",
        ),
    )
}


def folder(given: str | Path | None = None) -> Path:
    """The folder of the weights: the one given, else `$TORCH_HOME/hub/checkpoints`, else torch's default."""
    if given is not None:
        return Path(given).expanduser()
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch"
    return Path(home).expanduser() / "hub" / "checkpoints"


def verified(name: str, given: str | Path | None = None) -> Path | Unavailable:
    """The path of one declared file whose hash is right, or the reason why there is none."""
    weight = WEIGHTS[name]
    path = folder(given) / weight.file
    if not path.is_file():
        where = f"{given}" if given else "TORCH_HOME/hub/checkpoints"  # the reason is published: no path of a machine
        return Unavailable(
            f"weights '{weight.file}' ({weight.size}) not found in {where}: get them from {weight.source}"
        )
    digest = sha256(path)
    if not digest.startswith(weight.sha256):
        return Unavailable(
            f"weights '{path}' have sha256 {digest[:16]}..., expected {weight.sha256}...: not the declared file"
        )
    return path


def sha256(path: Path) -> str:
    """The sha256 of a file, remembered as long as its size and time of change stay the same."""
    stat = path.stat()
    return _sha256(str(path), stat.st_size, stat.st_mtime_ns)


@cache
def _sha256(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
