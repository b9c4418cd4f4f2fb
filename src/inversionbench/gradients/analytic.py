"""The input of a first fully connected layer from that layer's gradient alone: no weights, no labels.

With s = W x + b and delta_n = d loss_n / d s, the gradients are dW = (1/B) sum_n delta_n x_n^T and
db = (1/B) sum_n delta_n. So dW_i / db_i is a blend of the batch with the weights delta_{n,i} / sum_n delta_{n,i}:
the image itself where only one image activates unit i; and pinv(db) dW = db^T dW / |db|^2 is a blend whose
weights sum to 1: the image itself for a batch of one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from inversionbench.core.errors import AccessDenied

SAME = 1e-3  # relative distance of two copies of one candidate
ROOM = 0.02  # how far outside the data range a candidate may lie, as a share of the range


def first_layer(update: Mapping[str, Tensor], inputs: int, what: str) -> tuple[Tensor, Tensor]:
    """(dW (clients, units, inputs), db (clients, units)), the first two tensors of an update; `AccessDenied` where
    these are none of a linear layer with bias on the `inputs` numbers of a sample. what: needs it, for the message."""
    names = list(update)[:2]
    dw, db = (update[n] for n in names)
    if dw.ndim != 3 or dw.shape[2] != inputs or db.shape != dw.shape[:2]:
        raise AccessDenied(f"the first tensors {names} of the upload are {tuple(dw.shape[1:])} and "
                           f"{tuple(db.shape[1:])}: {what} needs a linear layer with bias on the {inputs} "
                           "numbers of a sample")  # fmt: skip
    return dw, db


def blend(dw: Tensor, db: Tensor) -> Tensor:
    """db^T dW / |db|^2, in double precision. dw: (units, d), db: (units,). Returns (d,)."""
    db = db.double()
    return db @ dw.double() / db.square().sum().clamp_min(1e-300)


def row_ratios(dw: Tensor, db: Tensor, tol: float) -> Tensor:
    """dW_i / db_i of the units with |db_i| above `tol` times the largest, strongest first: (rows, d)."""
    size = db.abs()
    order = size.argsort(descending=True, stable=True)
    keep = order[size[order] > tol * size.max()]
    return dw[keep].double() / db[keep].double()[:, None]


def clusters(rows: Tensor) -> list[tuple[int, Tensor]]:
    """Rows that agree to a relative distance of 1e-3: (how many, the strongest of them), by first appearance."""
    left, out = rows, []
    while len(left):
        near = (left - left[0]).norm(dim=1) <= SAME * left[0].norm().clamp_min(1e-300)
        near[0] = True
        out.append((int(near.sum()), left[0]))
        left = left[~near]
    return out


def candidates(dw: Tensor, db: Tensor, batch: int, box: tuple[float, float], tol: float) -> tuple[Tensor, int]:
    """`batch` images (batch, d) and how many of them are row ratios; the rest is the blend.

    Ratios inside the box come first that several units agree on (blends hardly ever coincide), then the
    strongest others. A batch of one is the blend. Where the layer sent no bias gradient at all: the middle of the box.
    """
    if not bool((db != 0).any()):
        return torch.full((batch, dw.shape[1]), sum(box) / 2, dtype=torch.float64, device=dw.device), 0
    whole = blend(dw, db)
    if batch == 1:
        return whole[None], 0
    room = ROOM * (box[1] - box[0])
    found = clusters(row_ratios(dw, db, tol))
    inside = [c for c in found if float(c[1].min()) >= box[0] - room and float(c[1].max()) <= box[1] + room]
    chosen = [x for _, x in sorted(inside, key=lambda c: -c[0])][:batch]
    return torch.stack(chosen + [whole] * (batch - len(chosen))), len(chosen)
