"""Before any gradient attack: does the attacker's simulation of the client agree with the client?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.core.protocol import Protocol
from inversionbench.federation.client import Sent
from inversionbench.gradients.objectives import Matching
from inversionbench.gradients.simulate import simulator
from inversionbench.models.federated import Victim


def self_check(
    model: Victim, protocol: Protocol, sent: Sequence[Sent], view: dict[str, Tensor], labels: Tensor
) -> dict[str, list[float]]:
    """How well the attacker's simulation of the client agrees with the client, per client.

    match_at_truth_undefended: cosine distance at the true images between the simulated update and the one
    before H6; 0 to float precision, else the client is simulated wrongly (or H2 to H5 change it). match_at_truth:
    the same against what the server sees. cos_sent_true: cosine of the two updates. norm: of the update.
    """
    model.bn_mode(protocol.bn)
    client = simulator(model, protocol)
    x = torch.stack([model.front(s.x) for s in sent])
    y = sent[0].y
    soft = y.is_floating_point()
    targets = torch.stack([s.y for s in sent]) if soft else F.one_hot(labels, model.classes).float()
    with torch.no_grad():
        own = client(x.detach(), targets)
    scale = -1.0 if protocol.sends == "delta" else 1.0
    before = scale * client.layout.flatten({n: torch.stack([s.update[n] for s in sent]) for n in view})
    after = scale * client.layout.flatten(view)
    return {
        "match_at_truth_undefended": Matching(before)(own).tolist(),
        "match_at_truth": Matching(after)(own).tolist(),
        "cos_sent_true": F.cosine_similarity(before, after, dim=1, eps=1e-30).tolist(),
        "norm": before.norm(dim=1).tolist(),
    }
