"""The gradient of every example on its own, by Opacus where it knows the layers, by torch.func elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inversionbench.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn


def per_sample(model: nn.Module, x: Tensor, y: Tensor, way: str = "auto") -> dict[str, Tensor]:
    """name -> (n, *shape): gradients of the cross entropy of each example.

    x: (n, ...), y: (n,) int64 or (n, classes) probabilities; n may be 0. Of token numbers x an example is a sentence, y
    its next tokens (n, places) or its class; its loss is the mean over its places; all at once where the model says
    that torch.func has a rule for all of it (`vectorised`). way: "auto", "opacus" or "func". Raises `UserError` where
    the model normalises with the statistics of the batch: then no example has a gradient of its own.
    """
    check(model)
    if len(x) == 0:
        return {name: p.new_zeros(0, *p.shape) for name, p in model.named_parameters()}
    if not x.is_floating_point() and not getattr(model, "vectorised", False):
        return _one_by_one(model, x, y)
    if way == "opacus" or (way == "auto" and x.is_floating_point() and known(model)):
        return _opacus(model, x, y)
    return _func(model, x, y)


def check(model: nn.Module) -> None:
    """Refuse layers that mix the examples of a batch."""
    from torch import nn

    from inversionbench.models.federated import BatchNorm

    for name, module in model.named_modules():
        ours = isinstance(module, BatchNorm) and (module.batch or module.track)
        if ours or (isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training):
            raise UserError(
                f"dp_sgd: layer '{name}' normalises with the statistics of the batch, so examples have no gradients "
                "of their own: use a network without batch norm (convnet, lenet, mlp, vit)"
            )


def known(model: nn.Module) -> bool:
    """Whether Opacus has a rule for every layer that owns parameters."""
    from opacus.grad_sample import GradSampleModule

    owners = [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None]
    return all(type(m) in GradSampleModule.GRAD_SAMPLERS for m in owners)


def _opacus(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """By hooks on the layers, on a copy: nothing of them stays on the model."""
    import copy

    from opacus.grad_sample import GradSampleModule
    from torch.nn import functional as F

    wrapped = GradSampleModule(copy.deepcopy(model), loss_reduction="mean").train()
    F.cross_entropy(wrapped(x.detach().requires_grad_()), y).backward()
    return {name.removeprefix("_module."): p.grad_sample.detach() for name, p in wrapped.named_parameters()}


def _one_by_one(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """For sentences: Opacus weighs them by their lengths, and torch.func has no rule for their attention."""
    import torch
    from torch.nn import functional as F

    names, parameters = zip(*model.named_parameters())
    rows = [torch.autograd.grad(F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), parameters) for i in range(len(x))]
    return {name: torch.stack(parts) for name, parts in zip(names, zip(*rows))}


def _func(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    from torch.func import functional_call, grad, vmap
    from torch.nn import functional as F

    params = {n: p.detach() for n, p in model.named_parameters()}
    buffers = {n: b.detach() for n, b in model.named_buffers()}

    def loss(p: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, (p, buffers), (a[None],)), b[None])

    return vmap(grad(loss), in_dims=(None, 0, 0))(params, x.detach(), y)
