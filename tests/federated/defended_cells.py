"""What the tests of client-side defenses share: a client and its gradient, a quick attack, a quick training."""

import functools

import torch
from federated_cells import CONVNET, data, evaluate, generator, psnr, reconstruct, scenario, target
from torch.nn import functional as F

from inversionbench.core.defense import NONE, Client
from inversionbench.federation.settings import Federation
from inversionbench.models.federated import build
from inversionbench.tracks.federated.rounds import train


def network(seed=0, model=CONVNET, rng=None):
    return build(model, data().shape, data().classes, rng or generator(seed))


def images(n=4):
    return data().private.images()[:n], data().private.labels()[:n]


def flat(update):
    """All tensors of an update, or of a sequence, as one vector."""
    return torch.cat([t.flatten() for t in (update.values() if isinstance(update, dict) else update)])


def cosine(a, b):
    return float(F.cosine_similarity(flat(a), flat(b), dim=0))


def as_client(defense, n=40, seed=0):
    """The defense as a client with the first private images runs it."""
    ready = defense.prepare(data(), lambda rng: network(rng=rng), generator(seed))
    return ready.for_client(*images(n), generator(seed + 1))


def scores(defense, steps=120, subjects=4, seeds=1, **protocol):
    """(PSNR to the original, PSNR to what the gradient saw), over so many networks."""
    where, found = scenario(subjects=subjects, **protocol), []
    for seed in range(seeds):
        made = target(where, defense, seed)
        answer = evaluate(where, made, reconstruct(where, made, "inverting_gradients", defense=defense, steps=steps))
        found.append((float(answer.metrics["psnr"].mean()), answer.facts["to_transformed"]["psnr"]))
    return tuple(sum(values) / seeds for values in zip(*found))


def client(count=1, state=None, round=0, seed=0, model=None, first=0):
    """A client of a fresh network with its first images, and the gradient it would send."""
    net = model or network(seed)
    x = data().private.images()[first : first + count]
    y = data().private.labels()[first : first + count]
    gradient = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    names = [n for n, _ in net.named_parameters()]
    parameters = {n: p.detach() for n, p in net.named_parameters()}
    ctx = Client(round, 5, 0, 4, count, parameters, generator(round), {} if state is None else state, net, x, y)
    return ctx, dict(zip(names, gradient))


@functools.cache
def attack(defense=NONE, steps=120, subjects=4, seeds=1, **params):
    """Mean PSNR over so many networks, whose seeds vary more than their clients."""
    where, found = scenario(subjects=subjects), []
    for seed in range(seeds):
        made = target(where, defense, seed)
        answer = reconstruct(where, made, "inverting_gradients", defense=defense, steps=steps, **params)
        found.append(psnr(where, made, answer))
    return sum(found) / seeds


@functools.cache
def learn(defense, rounds=60):
    """Mean loss on unchanged images after some federated rounds."""
    net = network()
    ready = defense.prepare(data(), lambda rng: network(rng=rng), generator())
    x, y = data().private.images(), data().private.labels()
    train(net, x, y, 10, Federation(clients=4, batch=8, rate=0.05), rounds, ready, generator(1), generator(2))
    with torch.no_grad():
        return float(F.cross_entropy(net(x), y))
