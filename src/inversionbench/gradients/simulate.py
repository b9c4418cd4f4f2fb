"""What the client would send, computed from dummy images: x -> update, differentiable, all trials at once.

A simulator maps x (trials, batch, c, h, w), normalised, and y (trials, batch, classes), probabilities, to
(trials, size): the mean gradient along the client's local steps, in the order of its `layout`. With one step
that is the FedSGD gradient; with U steps at rate r it is (old - new weights) / (r U), the same steps in the
same order as the client took them. Trials do not interact.

Forms, chosen once per setting by rule (a clock would make results depend on the load) and recorded:
im2col, grouped (both in `_explicit`; "auto" chooses per convolution), compiled (auto through torch.compile),
vmap (any network), loop (one trial after the other, the plain reference). precision "bfloat16" is for
processors that compute in it; the update and its gradient come out as float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from inversionbench.core.allocator import keep_memory
from inversionbench.core.errors import UserError, suggest
from inversionbench.core.protocol import Protocol
from inversionbench.gradients.explicit import Gradient, LocalSteps, Network, Unsupported, cross_entropy, forms
from inversionbench.gradients.layout import Layout, layout_of
from inversionbench.models.federated import Victim
from inversionbench.models.own import OwnVictim

FORMS = ("auto", "im2col", "grouped", "compiled", "vmap", "loop")
PRECISIONS = ("float32", "bfloat16")
SAME = 1e-3  # relative difference of two ways to compute one derivative
Params = dict[str, Tensor]


class Simulator:
    """Base: `layout`, `form` (what runs), and the call, which costs `passes` gradient evaluations."""

    layout: Layout
    form: str
    protocol: Protocol

    @property
    def passes(self) -> int:
        return len(self.protocol.steps)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError


class Explicit(Simulator):
    """Hand-written passes, for chains of known layers."""

    def __init__(self, model: Victim, protocol: Protocol, form: str, precision: str = "float32"):
        self.model, self.protocol, self.steps = model, protocol, protocol.steps
        self.options: dict[str, Any] = {"form": "auto" if form == "compiled" else form, "compiled": form == "compiled"}
        if precision == "bfloat16":
            self.options["dtype"] = torch.bfloat16
        first = Network(model, 1, form=self.options["form"])
        self.networks: dict[int, Network] = {}
        self.layout = first.layout
        extra = [word for word in ("compiled", "bfloat16") if word in (form, precision)]
        self.form = ", ".join(["+".join(forms(first.chain)) or "dense", *extra])

    def _network(self, trials: int) -> Network:
        if trials not in self.networks:
            self.networks = {trials: Network(self.model, trials, **self.options)}
        return self.networks[trials]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        network = self._network(len(x))
        if len(self.steps) == 1:
            return Gradient.apply(x, y, network)
        return LocalSteps.apply(x, y, network, self.steps, self.protocol.local_rate)


class Functional(Simulator):
    """Any network, by torch.func (`vmap`) or one trial after the other (`loop`)."""

    def __init__(self, model: Victim, protocol: Protocol, form: str):
        self.form, self.protocol = form, protocol
        self.body: nn.Module = model.body
        named = {n: p.detach() for n, p in model.named_parameters()}
        self.layout = layout_of({n: p.shape for n, p in named.items()})
        self.params = {n.removeprefix("body."): p.clone() for n, p in named.items()}
        self.buffers = {n.removeprefix("body."): b.detach().clone() for n, b in model.named_buffers()}

    def _loss(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(functional_call(self.body, (params, self.buffers), (x,)), y)

    def _path(self, step: Callable[[Params, Tensor, Tensor], Params], x: Tensor, y: Tensor) -> Params:
        params, steps = self.params, self.protocol.steps
        total: Params = {}
        for u, (i, j) in enumerate(steps):
            g = step(params, x[i:j], y[i:j])
            total = {n: total[n] + g[n] for n in g} if total else g
            if u + 1 < len(steps):
                params = {n: p - self.protocol.local_rate * g[n] for n, p in params.items()}
        return {f"body.{n}": t / len(steps) for n, t in total.items()}

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        if self.form == "vmap":
            path = vmap(lambda a, b: self._path(grad(self._loss), a, b), randomness="different")
            return self.layout.flatten(path(x, y))
        rows = [self._path(self._plain, a, b) for a, b in zip(x, y)]
        return torch.cat([self.layout.flatten({n: t[None] for n, t in row.items()}) for row in rows])

    def _plain(self, params: Params, x: Tensor, y: Tensor) -> Params:
        leaves = {n: p if p.requires_grad else p.detach().requires_grad_() for n, p in params.items()}
        with torch.enable_grad():
            g = torch.autograd.grad(self._loss(leaves, x, y), list(leaves.values()), create_graph=True)
        return dict(zip(leaves, g))


def simulator(
    model: Victim, protocol: Protocol, form: str = "auto", precision: str = "float32"
) -> Simulator:
    """The fastest form that this network and protocol allow, or the form that is asked for.

    Raises `UserError` for an unknown form and `Unsupported` where the form asked for cannot run the network.
    """
    keep_memory()
    torch.backends.cudnn.allow_tf32 = False  # a GPU's 10 bits would blur what is matched; the clients' have 23
    if form not in FORMS:
        raise UserError(f"form: unknown '{form}': {suggest(form, FORMS)}")
    if precision not in PRECISIONS:
        raise UserError(f"precision: unknown '{precision}': {suggest(precision, PRECISIONS)}")
    if precision != "float32" and form in ("vmap", "loop"):
        raise UserError(f"precision: {precision} is for the forms auto, im2col, grouped and compiled, not {form}")
    if form in ("vmap", "loop"):
        return Functional(model, protocol, form)
    try:
        return Explicit(model, protocol, form, precision)
    except Unsupported:
        if form != "auto":
            raise
        return Functional(model, protocol, faithful(model, protocol) if isinstance(model, OwnVictim) else "vmap")


def faithful(net: Victim, protocol: Protocol) -> str:
    """How to compute a network that nobody has checked: all trials at once ("vmap") where that gives the derivatives
    that plain autograd gives, else one after the other ("loop"), which is slower."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(1, protocol.batch_size, *net.shape, generator=rng)
    y = torch.full((1, protocol.batch_size, net.classes), 1 / net.classes)
    found = []
    for kind in ("vmap", "loop"):
        try:
            client, probe = Functional(net, protocol, kind), x.clone().requires_grad_()
            sent = client(probe, y)
            towards = torch.randn(sent.shape, generator=torch.Generator().manual_seed(1))
            found.append(torch.autograd.grad((sent * towards).sum(), probe)[0])
        except Exception:  # whatever a network does that vmap cannot
            if kind == "loop":
                raise
            return "loop"
    return "vmap" if bool((found[0] - found[1]).norm() <= SAME * found[1].norm()) else "loop"


def memory(model: Victim, batch: int) -> int:
    """Bytes that one trial of a simulator needs at most, estimated from the sizes of its activations."""
    values = 0

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal values
        if isinstance(module, nn.Conv2d):
            windows = module.kernel_size[0] * module.kernel_size[1] // module.stride[0] ** 2
            values += 2 * (inputs[0].numel() * windows + output.numel() * windows)
        if not list(module.children()):
            values += 8 * output.numel()

    hooks = [m.register_forward_hook(count) for m in model.body.modules()]
    try:
        with torch.no_grad():
            model.body(torch.zeros(1, *model.shape, device=next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return 4 * (batch * values + 8 * sum(p.numel() for p in model.parameters()))
