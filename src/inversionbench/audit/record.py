"""Write the update file of an audit from real training.

A bare PyTorch loop:

    with recorded(model, "round-1", optimizer):        # or: sends="gradient", around one forward and backward pass
        train(model, ...)

writes round-1/weights.npz (before), round-1/update.npz, and round-1/protocol.txt, what was seen of how it was made:

    inversionbench audit update --model net.py:make --weights round-1/weights.npz --update round-1/update.npz \\
        --truth batch.npz --protocol "$(cat round-1/protocol.txt)"

A Flower client: `ClientApp(mods=[flower_mod("rounds")])` writes a folder for every training message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from inversionbench.core.errors import UserError
from inversionbench.core.files import atomic_folder, write_text

Named = Mapping[str, Tensor]


@contextmanager
def recorded(
    model: nn.Module,
    folder: str | Path,
    optimizer: torch.optim.Optimizer | None = None,
    sends: Literal["delta", "gradient"] = "delta",
) -> Iterator[None]:
    """Record what is done to `model` inside: the difference of its weights ("delta"), or the gradients that its
    parameters hold at the end ("gradient"; they must be None or zero before).

    optimizer: tells the learning rate, and what of it no protocol can say (momentum, weight decay), which is refused.
    Nothing is written where the block ends with an error, or where nothing was learnt.
    """
    rate = _rate(optimizer)
    before = _copy(model.state_dict())
    start = _copy(dict(model.named_parameters()))
    if sends == "gradient" and any(p.grad is not None and bool(p.grad.any()) for p in model.parameters()):
        raise UserError("recorded: the parameters hold gradients already; call model.zero_grad() before")
    seen: list[tuple[bool, int]] = []  # of each forward pass with gradients: train mode, and samples
    hook = model.register_forward_pre_hook(lambda module, given: seen.append((module.training, len(given[0])))
                                           if torch.is_grad_enabled() else None)  # fmt: skip
    try:
        yield
    finally:
        hook.remove()
    if sends == "delta":
        update = {n: p.detach() - start[n].to(p.device) for n, p in model.named_parameters()}
    else:
        update = {n: p.grad.detach() for n, p in model.named_parameters() if p.grad is not None}
    if not any(bool(t.any()) for t in update.values()):
        raise UserError(f"recorded: nothing was learnt inside the block, there is no {sends} to write")
    _write(Path(folder), before, update, _protocol(model, sends, seen, rate))


def flower_mod(folder: str | Path) -> Callable[..., Any]:
    """A client mod for Flower's `ClientApp` that writes one folder for each training message: `<folder>/<node>-<n>`.

    The weights that came and the weights that went back must be records of arrays with the names of the model's state
    dict (`ArrayRecord(model.state_dict())`). What the protocol was only the client knows: state it in the audit.
    """
    count = 0

    def mod(message: Any, context: Any, call_next: Callable[..., Any]) -> Any:
        nonlocal count
        came = _arrays(message.content)
        reply = call_next(message, context)
        if came and message.metadata.message_type.startswith("train") and reply.has_content():
            went = _arrays(reply.content)
            update = {n: t - came[n] for n, t in went.items() if n in came and t.is_floating_point()}
            _write(Path(folder) / f"{context.node_id}-{count}", came, update, "sends: delta")
            count += 1
        return reply

    return mod


def _arrays(content: Any) -> dict[str, Tensor]:
    """All arrays of a message, by name."""
    return {str(name): torch.from_numpy(np.array(array.numpy()))
            for record in content.array_records.values() for name, array in record.items()}  # fmt: skip


def _copy(named: Named) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in named.items()}


def _rate(optimizer: torch.optim.Optimizer | None) -> float | None:
    """The learning rate of plain SGD."""
    if optimizer is None:
        return None
    if not isinstance(optimizer, torch.optim.SGD):
        raise UserError(f"recorded: {type(optimizer).__name__} cannot be simulated; audits know plain SGD")
    for group in optimizer.param_groups:
        if wrong := [name for name in ("momentum", "weight_decay", "dampening", "nesterov") if group[name]]:
            raise UserError(f"recorded: SGD with {wrong[0]} {group[wrong[0]]} cannot be simulated; set it to 0")
    rates = {group["lr"] for group in optimizer.param_groups}
    if len(rates) > 1:
        raise UserError(f"recorded: groups of parameters have learning rates {sorted(rates)}; one is expected")
    return float(rates.pop())


def _protocol(model: nn.Module, sends: str, seen: list[tuple[bool, int]], rate: float | None) -> str:
    """What was seen, as the settings of a protocol."""
    said = [f"sends: {sends}"]
    if rate is not None and sends == "delta":
        said.append(f"local_rate: {rate:g}")
    if seen and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        said.append(f"bn: {'train_private' if seen[0][0] else 'eval_public'}")
    if seen and sends == "delta":
        said.append(f"local_batch: {seen[0][1]}")
    return ", ".join(said)


def _write(folder: Path, weights: Named, update: Named, protocol: str) -> None:
    with atomic_folder(folder) as part:
        for name, tensors in (("weights", weights), ("update", update)):
            arrays: dict[str, Any] = {n: t.cpu().numpy() for n, t in tensors.items()}
            np.savez(part / f"{name}.npz", **arrays)
        write_text(part / "protocol.txt", protocol)
