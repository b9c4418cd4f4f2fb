"""A user's own network: from code and a file of weights to the forms that federated clients and classifiers have."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inversionbench.core.errors import UserError, suggest
from inversionbench.models.base import Trace
from inversionbench.models.federated import BatchNorm, Normalise, Victim

PREFIX = "body.net."  # of a user's parameter names inside `OwnVictim`
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Inputs:
    """How pixels in [0, 1] become what the network reads: (x - mean) / std, by channel or one number for all."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def check(self, channels: int) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise UserError(f"{name}: expected 1 or {channels} numbers, got {len(values)}")
        if not all(s > 0 for s in self.std):
            raise UserError(f"std: expected numbers above 0, got {list(self.std)}")


class Norm(BatchNorm):
    """A user's batch norm of any rank, with its mode declared. x: (n, c, ...)."""

    def __init__(self, norm: Any):
        super().__init__(norm.num_features, norm.eps)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var

    def forward(self, x: Tensor) -> Tensor:
        axes, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
        mean, var = self.running_mean, self.running_var
        if self.batch or self.record:
            own_var, own_mean = torch.var_mean(x, dim=axes, unbiased=False)
            if self.record:
                self.seen = (own_mean, own_var)
            if self.batch:
                mean, var = own_mean, own_var
        scale = self.weight * (var + self.eps).rsqrt()
        return x * scale.view(shape) + (self.bias - mean * scale).view(shape)


class Body(nn.Module):
    """From the space that attacks search in, about zero mean and unit range, through pixels to the user's network."""

    def __init__(self, net: nn.Module, inputs: Inputs, front: Normalise):
        super().__init__()
        self.net, self.front = net, front
        self.register_buffer("mean", torch.tensor(inputs.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(inputs.std).view(1, -1, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, z: Tensor) -> Tensor:
        return self.net((self.front.pixels(z) - self.mean) / self.std)


class OwnVictim(Victim):
    """A copy of a user's classifier: (n, c, h, w) in [0, 1] -> logits (n, classes); its weights stay as they are.

    Batch norms are replaced by ones whose mode is declared (`bn_mode`), so that no train() or eval() decides in
    silence what is simulated. Dropout is off.

    Raises `UserError` for what cannot be simulated as it is, or answers with no logits.
    """

    def __init__(self, module: nn.Module, shape: tuple[int, int, int], inputs: Inputs):
        nn.Module.__init__(self)
        inputs.check(shape[0])
        net = copy.deepcopy(module).eval().requires_grad_(True)
        kind = nn.modules.dropout._DropoutNd
        self.dropout = [name for name, m in net.named_modules() if isinstance(m, kind) and m.p > 0]
        net = _declared(net)
        self.front = Normalise()
        self.body: Any = Body(net, inputs, self.front)
        self.shape = shape
        self._head, self.classes = _look(net, self.body, shape)

    @property
    def head(self) -> nn.Linear:
        return self.body.net.get_submodule(self._head)

    @property
    def head_names(self) -> tuple[str, str]:
        return f"{PREFIX}{self._head}.weight", f"{PREFIX}{self._head}.bias"

    def features(self, x: Tensor) -> Tensor:
        return self._through(x)[1]

    def trace(self, x: Tensor) -> Trace:
        logits, features = self._through(self.front(x))
        return Trace(logits, features)

    def _through(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and what the head read."""
        seen: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        try:
            return self.body(z), seen[-1]
        finally:
            hook.remove()


def _declared(net: nn.Module) -> nn.Module:
    """`net` with its batch norms replaced; refuses what has a state that no protocol declares."""
    if isinstance(net, NORMS):
        return _norm(net, "the network")
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            parent, _, last = name.rpartition(".")
            setattr(net.get_submodule(parent), last, _norm(module, name))
        elif getattr(module, "track_running_stats", False):
            raise UserError(f"the network's {name} ({type(module).__name__}) keeps running statistics, which cannot be "
                            "simulated here")  # fmt: skip
        elif getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    return net


def _norm(module: Any, name: str) -> Norm:
    if not isinstance(module, NORMS) or module.running_mean is None or module.weight is None:
        raise UserError(f"the network's {name} ({module}) cannot be simulated: batch norms need weights and running "
                        "statistics, and no synchronisation between machines")  # fmt: skip
    return Norm(module)


def _look(net: nn.Module, body: nn.Module, shape: tuple[int, int, int]) -> tuple[str, int]:
    """(name of the linear layer that makes the logits, number of classes), from one forward pass."""
    last: list[str] = []
    hooks = [
        module.register_forward_hook(lambda m, given, out, name=name: last.append(name))  # type: ignore[misc]
        for name, module in net.named_modules() if isinstance(module, nn.Linear)
    ]  # fmt: skip
    probe = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    given = probe.clone()
    try:
        with torch.no_grad():
            out = net(given)
            again = body(Normalise()(probe))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise UserError(f"the network does not read images of shape {shape}: {error}") from None
    finally:
        for hook in hooks:
            hook.remove()
    if not torch.equal(given, probe):
        raise UserError("the network changes its input in place: nothing that is computed from it could be trusted")
    if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != 2:
        kind = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise UserError(f"the network answers with {kind}, expected logits of shape (batch, classes)")
    if not again.isfinite().all():
        raise UserError("the network answers with values that are not finite: are its weights loaded?")
    if not last or net.get_submodule(last[-1]).out_features != out.shape[1]:
        raise UserError("the network's last layer is no linear layer that makes the logits, which labels are read off")
    return last[-1], out.shape[1]


def network(named: str, weights: Path | None = None, *args: Any) -> nn.Module:
    """The network that `package:factory` or `file.py:factory` makes from args, with the weights of a file.

    This runs the code that is named and no other: weights are read as tensors, never unpickled.
    """
    where, _, factory = named.rpartition(":")
    if not where or not factory.isidentifier():
        raise UserError(f"expected package:factory or file.py:factory, got '{named}'")
    module = _module(where)
    make = getattr(module, factory, None)
    if make is None:
        known = [name for name in vars(module) if not name.startswith("_")]
        raise UserError(f"{where} has no '{factory}': {suggest(factory, known)}")
    try:
        net = make(*args)
    except TypeError as error:
        raise UserError(f"{named}({', '.join(map(str, args))}): {error}") from None
    if not isinstance(net, nn.Module):
        raise UserError(f"{named}() returns {type(net).__name__}, expected a torch.nn.Module")
    if weights is not None:
        _fill(net, tensors(weights, "weights"), weights)
    return net


def _module(where: str) -> Any:
    path = Path(where)
    if path.suffix != ".py":
        sys.path.insert(0, "")
        try:
            return importlib.import_module(where)
        except ImportError as error:
            raise UserError(f"cannot import '{where}': {error}") from None
    if not path.is_file():
        raise UserError(f"no such file: {path}")
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


def made(model: Mapping[str, Any], shape: tuple[int, ...], classes: int) -> tuple[nn.Module, Inputs]:
    """The network of `model: {import, weights, mean, std, arguments}` in params.yaml, and its normalisation."""
    weights = model.get("weights")
    net = network(model["import"], None if weights is None else Path(weights).expanduser(), *model.get("arguments", ()))
    inputs = Inputs(tuple(model.get("mean", (0.0,))), tuple(model.get("std", (1.0,))))
    inputs.check(shape[0])
    with torch.no_grad():
        logits = net(torch.zeros(2, *shape))
    if not isinstance(logits, Tensor) or logits.shape != (2, classes):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"{model['import']}: answers with {got} to two images of shape {shape}, expected "
                        f"(2, {classes}) logits")  # fmt: skip
    return net, inputs


class OwnClassifier(nn.Module):
    """A user's classifier as it is, behind its normalisation; reports what the last linear layer reads."""

    def __init__(self, net: nn.Module, inputs: Inputs):
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(inputs.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(inputs.std).view(1, -1, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - self.mean) / self.std)

    def trace(self, x: Tensor) -> Trace:
        seen: list[Tensor] = []
        linear = [m for m in self.modules() if isinstance(m, nn.Linear)]
        hooks = [m.register_forward_pre_hook(lambda module, given: seen.append(given[0])) for m in linear]
        try:
            logits = self(x)
        finally:
            for hook in hooks:
                hook.remove()
        return Trace(logits, seen[-1].flatten(1) if seen else None)
