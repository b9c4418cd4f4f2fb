"""Labels of a batch, read off the gradient of the last layer.

For cross entropy with hard labels the head's gradients are

    db_i = (1/B) sum_n (p_{n,i} - [y_n = i]),    dW_i = (1/B) sum_n (p_{n,i} - [y_n = i]) h_n,

p the softmax outputs and h the features of image n. Rules (name: source, when exact):

- row_sum: iDLG (Zhao et al. 2020): smallest row sums. Batch 1 and features with a positive sum.
- inner_product: the text of iDLG: the row whose product with every other row is <= 0. Batch 1, any features.
- bias: smallest db_i. Batch 1, any activation.
- negative_set: the classes with db_i < 0, which are certainly present; the most negative fills up the batch.
- min_row: GradInversion (Yin et al. 2021): smallest entry of each row. Distinct labels, features >= 0.
- wainakh: Wainakh et al. 2022: row sums, each label lowers its row by a common impact. Untrained, features >= 0.
- bias_corrected: the same with db_i and impact (1/B) sum of the negative db_i. Untrained, any activation.
- geng: Geng et al. 2021: counts from the softmax and feature sums of dummy inputs. Untrained, features >= 0.
- ilrg: iLRG (Ma et al. 2023): counts from a linear system with class-wise mean features dW_j / db_j.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inversionbench.core.errors import UserError, suggest

DUMMIES = 1000  # random inputs of `geng`
SMALL = 1e-12  # |db_j| below this says nothing about the features of class j


@dataclass(frozen=True)
class Head:
    """What the rules see of one client. dw: (classes, width), db: (classes,) or None, weight, bias: the head's
    parameters, softmax (classes,) and total: mean softmax and mean feature sum of dummy inputs, for `geng`.
    """

    dw: Tensor
    db: Tensor | None
    weight: Tensor
    bias: Tensor | None
    softmax: Tensor | None = None
    total: float = 0.0

    def need_bias(self, rule: str) -> Tensor:
        if self.db is None:
            raise UserError(f"label rule '{rule}' needs a head with a bias; use row_sum or inner_product")
        return self.db


def recover_labels(head: Head, batch: int, rule: str) -> Tensor:
    """The labels of one batch as a sorted multiset, int64 (batch,).

    Raises `UserError` for unknown rules, rules that need a bias, and `inner_product` beyond batch 1.
    """
    if rule not in RULES:
        raise UserError(f"unknown label rule '{rule}': {suggest(rule, RULES)}")
    return RULES[rule](head, batch).sort().values


def _smallest(scores: Tensor, batch: int) -> Tensor:
    """The `batch` smallest, each class once; beyond the number of classes it starts again."""
    order = scores.argsort(stable=True)
    return order.repeat(-(-batch // len(order)))[:batch]


def _row_sum(head: Head, batch: int) -> Tensor:
    return _smallest(head.dw.sum(1), batch)


def _inner_product(head: Head, batch: int) -> Tensor:
    if batch != 1:
        raise UserError(f"label rule 'inner_product' is defined for batch 1, got {batch}")
    products = head.dw.double() @ head.dw.double().T
    products.fill_diagonal_(-torch.inf)
    return products.max(dim=1).values.argmin()[None]


def _bias(head: Head, batch: int) -> Tensor:
    return _smallest(head.need_bias("bias"), batch)


def _negative_set(head: Head, batch: int) -> Tensor:
    db = head.need_bias("negative_set")
    order = db.argsort(stable=True)
    present = order[: max(1, min(batch, int((db < 0).sum())))]
    return torch.cat([present, order[:1].repeat(batch - len(present))])


def _min_row(head: Head, batch: int) -> Tensor:
    return _smallest(head.dw.min(dim=1).values, batch)


def _by_impact(scores: Tensor, impact: Tensor, batch: int) -> Tensor:
    """First every negative class once, then always the smallest; each taken label raises its class by -impact."""
    left = scores.clone().double()
    labels: list[int] = []
    for i in left.argsort(stable=True).tolist():
        if left[i] < 0 and len(labels) < batch:
            labels.append(i)
    left[labels] -= impact
    while len(labels) < batch:
        i = int(left.argmin())
        labels.append(i)
        left[i] -= impact
    return torch.tensor(labels)


def _wainakh(head: Head, batch: int) -> Tensor:
    sums = head.dw.double().sum(1)
    impact = (1 + 1 / len(sums)) / batch * sums[sums < 0].sum()
    return _by_impact(sums, impact, batch)


def _bias_corrected(head: Head, batch: int) -> Tensor:
    db = head.need_bias("bias_corrected").double()
    return _by_impact(db, db[db < 0].sum() / batch, batch)


def _geng(head: Head, batch: int) -> Tensor:
    if head.softmax is None:
        raise UserError("label rule 'geng' needs the mean softmax and feature sum of dummy inputs")
    counts = batch * head.softmax.double() - batch * head.dw.double().sum(1) / head.total
    return _expand(_rounded(counts, batch))


def _ilrg(head: Head, batch: int) -> Tensor:
    db = head.need_bias("ilrg").double()
    classes = len(db)
    safe = torch.where(db.abs() < SMALL, torch.full_like(db, SMALL), db)
    features = head.dw.double() / safe[:, None]
    bias = head.bias.double() if head.bias is not None else 0.0
    p = torch.softmax(features @ head.weight.double().T + bias, dim=1)  # (class j, class i)
    p = torch.nan_to_num(p, nan=1 / classes)
    system = torch.cat([p.T - torch.eye(classes, dtype=torch.float64), torch.ones(1, classes).double()])
    right = torch.cat([batch * db, torch.tensor([float(batch)], dtype=torch.float64)])
    return _expand(_rounded(torch.linalg.pinv(system) @ right, batch))


def _rounded(counts: Tensor, batch: int) -> Tensor:
    """Non-negative whole numbers with sum `batch` nearest to `counts` (projection on the simplex, largest remainder).

    A defended update yields counts of any size; the projection brings them so near that few single steps are left.
    """
    counts = torch.nan_to_num(counts).clamp(0, 2**40)
    ordered = counts.sort(descending=True).values
    shifts = (ordered.cumsum(0) - batch) / torch.arange(1, len(counts) + 1)
    counts = (counts - shifts[(ordered > shifts).nonzero().max()]).clamp_min(0)
    whole = counts.floor()
    missing = batch - int(whole.sum())
    while missing != 0:
        error = counts - whole
        if missing > 0:
            i = int(error.argmax())
            whole[i] += 1
            missing -= 1
        else:
            error = torch.where(whole > 0, error, torch.full_like(error, torch.inf))
            i = int(error.argmin())
            whole[i] -= 1
            missing += 1
    return whole.long()


def _expand(counts: Tensor) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(counts)), counts)


RULES: dict[str, Callable[[Head, int], Tensor]] = {
    "row_sum": _row_sum,
    "inner_product": _inner_product,
    "bias": _bias,
    "negative_set": _negative_set,
    "min_row": _min_row,
    "wainakh": _wainakh,
    "bias_corrected": _bias_corrected,
    "geng": _geng,
    "ilrg": _ilrg,
}
