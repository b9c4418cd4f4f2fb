"""dlib's embedding of real faces, as one more verifier: nobody here trained it, and it has seen no data set of ours.

Package `dlib-bin`, weights from the wheel of `face-recognition-models`: `pip install 'inversionbench[faces]'`. A
residual network, 128 numbers, taught by three million photographs (King, "High Quality Face Recognition with Deep
Metric Learning", dlib.net, 2017). It wants a face that fills a square of 150 pixels; no landmarks are looked for,
because few reconstructions have any: the middle of the picture is taken. It says nothing of drawings. dlib computes by
itself, so its numbers are outside what docs/numerics.md promises.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.metrics._weights import verified as checked
from inversionbench.metrics.base import Unavailable
from inversionbench.training.loop import as_float
from inversionbench.training.verifier import Gallery, enrol

if TYPE_CHECKING:
    from inversionbench.data.base import Dataset

SIDE = 150  # pixels of the network's input
CHUNK = 64


def weights() -> Path | Unavailable:
    """The file of the weights, its checksum verified; or why there is none."""
    models = find_spec("face_recognition_models")  # not imported: it wants a module that setuptools no longer has
    if find_spec("dlib") is None or models is None or not models.submodule_search_locations:
        return Unavailable("not installed: pip install 'inversionbench[faces]'")
    return checked("dlib_faces", Path(models.submodule_search_locations[0]) / "models")


def enrol_dlib(given: Mapping[str, Any], data: Dataset) -> dict[str, Any]:
    """The private people as dlib sees them, see `training.verifier.enrol`. given: `dlib` of the evaluators' options."""
    path = weights()
    if isinstance(path, Unavailable):
        return {"reason": path.reason}
    state = {"crop": given["crop"]}
    return state | enrol(DlibFaces(state).embed, data)


class DlibFaces(Gallery):
    """The network of the package. `state["crop"]`: share of the picture's side that is kept."""

    slow = True  # 0.13 s for each image

    def __init__(self, state: Mapping[str, Any]):
        import dlib

        super().__init__(state)
        self.crop, self.net = state["crop"], dlib.face_recognition_model_v1(str(weights()))

    def embed(self, x: Tensor) -> Tensor:
        out = []
        for part in x.split(CHUNK):
            faces = self._faces(as_float(part))
            out.append(np.array(self.net.compute_face_descriptor(faces), dtype=np.float32))
        return F.normalize(torch.from_numpy(np.concatenate(out)))

    def _faces(self, x: Tensor) -> list[np.ndarray]:
        """The middle of images (n, 1 or 3, h, w) in [0, 1], as uint8 (150, 150, 3)."""
        height, width = x.shape[2:]
        side = max(1, round(self.crop * min(height, width)))
        top, left = (height - side) // 2, (width - side) // 2
        x = F.interpolate(x[:, :, top : top + side, left : left + side], (SIDE, SIDE), mode="bilinear")
        pixels = (x.expand(-1, 3, -1, -1).clamp(0, 1) * 255).round().to(torch.uint8)
        return [np.ascontiguousarray(image) for image in pixels.permute(0, 2, 3, 1).numpy()]
