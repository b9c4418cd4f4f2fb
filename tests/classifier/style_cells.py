"""A style-based prior of the rendered people that is not trained as a GAN: codes of a small untrained generator,
fitted to public photographs. Good enough to search, and made in seconds."""

from __future__ import annotations

import functools

import torch
from classifier_cells import data, knowledge, oracle
from classifier_cells import generator as gen

from inversionbench.models.style import StyleGenerator, to_pixels
from inversionbench.models.style_prior import StylePrior

DIM = 24


@functools.cache
def style_prior(steps: int = 250) -> StylePrior:
    """Codes and generator are fitted together to public photographs; the mapping is the untrained one, its output
    whitened to the codes' mean and spread by construction: the codes are those that the mapping gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net = StyleGenerator(DIM, DIM, (24, 24, 12), 3, 16)
    x = data().public.images()[:256]
    _, s, v = torch.linalg.svd((x - x.mean(0)).flatten(1), full_matrices=False)
    z = (x - x.mean(0)).flatten(1) @ v[:DIM].T / s[:DIM] * 16  # the principal components, about N(0, 1)
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    rng = gen(1)
    for _ in range(steps):
        index = torch.randint(len(x), (32,), generator=rng)
        made = to_pixels(net.synthesis(net.mapping(z[index])))
        loss = (made - x[index]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    net.eval().requires_grad_(False)
    w = net.style(torch.randn(4000, DIM, generator=gen(2)))
    net.w_mean.copy_(w.mean(0))
    p = torch.where(w < 0, w / 0.2, w)
    return StylePrior(net, None, DIM, p.mean(0), p.std(0))


def attack_style(attack, seed: int = 0, targets=None, **options):
    """The reconstruction of one attack on the style-based prior, and the oracle it used."""
    asked = oracle(attack, **options)
    more = {} if targets is None else {"targets": torch.as_tensor(targets)}
    return attack.run(asked, knowledge(prior=style_prior(), **more), gen(seed)), asked
