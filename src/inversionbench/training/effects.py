"""What training defenses mean to change, measured on every classifier, defended or not, in the same way.

On at most `SAMPLES` training images without augmentation, the network in evaluation mode; what a defense declares in
its class attribute `effect` is one of these. Draws come from a generator of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.defenses.miscellaneous.bido import Bido, hsic
from inversionbench.models.base import trace
from inversionbench.training.loop import as_float

SAMPLES = 1024
BATCH = 64  # as BiDO is trained with: normalised dependence grows with the batch


@torch.no_grad()
def effects(net: nn.Module, x: Tensor, y: Tensor, classes: int, seed: int) -> dict[str, float]:
    """x: (n, ...) training images, y: (n,) int64.

    effect_confidence: mean of the largest softmax score, in [0, 1]. effect_logit_norm: mean L2 norm of the logits.
    As the loss of BiDO measures dependence, means over hidden layers Z and batches (absent where the network reports no
    hidden layer): effect_dependence_input, D(X, Z), and effect_dependence_label, D(Z, Y), from 0 to BATCH - 1;
    effect_label_gap, 1 - D(Z, Y) / D(Y, Y): what the layers do not know of the label, in [0, 1].
    """
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:SAMPLES].to(x.device)
    logits, image, label, gap = [], [], [], []
    measure = Bido()
    for part in chosen.split(BATCH):
        images, own = as_float(x[part]), y[part]
        seen = trace(net, images)
        logits.append(seen.logits)
        if seen.hidden and (len(part) == BATCH or len(chosen) < BATCH):
            onehot = F.one_hot(own, classes).double()
            to_label, to_image = measure.dependences(images, own, seen.hidden, classes)
            image.append(to_image.mean())
            label.append(to_label.mean())
            gap.append(1 - label[-1] / hsic(onehot @ onehot.T, onehot @ onehot.T, measure.eps).clamp_min(1e-12))
    scores = torch.cat(logits)
    found = {"effect_confidence": float(scores.softmax(1).amax(1).mean()),
             "effect_logit_norm": float(scores.norm(dim=1).mean())}  # fmt: skip
    parts = {"effect_dependence_input": image, "effect_dependence_label": label, "effect_label_gap": gap}
    return found | {name: float(torch.stack(values).mean()) for name, values in parts.items() if values}
