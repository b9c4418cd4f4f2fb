"""A device that is none: tensors that say they lie elsewhere and hold their values on the CPU.

Under `Pretend()`, what is made on or moved to the device `PLACE` is a `Held`; operations on it are computed on the
CPU. What a GPU refuses raises a RuntimeError here, too: tensors of both kinds in one operation (numbers of no
dimension, and CPU indices of device tensors, are allowed there and here), and CPU generators for device tensors.
The name "lazy" is one that torch knows and that needs no hardware: for "cuda", autograd wants a thread per GPU.
"""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

PLACE = torch.device("lazy", 0)
aten = torch.ops.aten
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._unsafe_index, aten._index_put_impl_}


class Held(torch.Tensor):
    """A tensor of the device; `inner` holds the values."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=PLACE, requires_grad=False,
        )  # fmt: skip

    def __init__(self, inner):
        self.inner = inner.resolve_conj().resolve_neg()  # what the flags of the holder do not say

    def __getitem__(self, index):
        parts = index if isinstance(index, tuple) else (index,)
        parts = [torch.tensor(i, dtype=torch.long) if isinstance(i, list) else i for i in parts]
        return super().__getitem__(tuple(parts))

    def tolist(self):
        return self.inner.tolist()

    def __deepcopy__(self, memo):
        out = Held(self.inner.detach().clone()).requires_grad_(self.requires_grad)
        out.__dict__.update({k: v for k, v in self.__dict__.items() if k != "inner"})
        return memo.setdefault(id(self), out)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class Pretend(TorchDispatchMode):
    """Sends every operation through `run`, so that tensors made on the device are held, too."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def run(func, args, kwargs):
    """One operation: refused, or computed on the CPU and held where the device would hold it."""
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    held = [t for t in tensors if isinstance(t, Held)]
    target, packet = kwargs.get("device"), func.overloadpacket
    asked = target is not None and torch.device(target).type == PLACE.type
    if packet in (aten._to_copy, aten.copy_, aten._local_scalar_dense):
        mixed = []
    elif packet in INDEXED and isinstance(args[0], Held):
        mixed = [t for t in args[2:] if isinstance(t, torch.Tensor) and not isinstance(t, Held) and t.ndim]
    else:
        mixed = [t for t in tensors if held and not isinstance(t, Held) and t.ndim]
    if mixed:
        raise RuntimeError(f"{func}: tensors on the device and on the CPU, {[tuple(t.shape) for t in mixed]}")
    if (held or asked) and isinstance(kwargs.get("generator"), torch.Generator):
        raise RuntimeError(f"{func}: a CPU generator for a tensor on the device")
    if target is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    plain_args, plain_kwargs = tree_map_only(Held, lambda t: t.inner, (args, kwargs))
    out = func(*plain_args, **plain_kwargs)
    owners = {id(t.inner): t for t in held}  # in-place operations return the tensor they were given
    if asked or (held and target is None):
        return tree_map_only(torch.Tensor, lambda t: owners[id(t)] if id(t) in owners else Held(t), out)
    return out
