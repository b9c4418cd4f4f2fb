"""Clients that train a language model on sentences: what the server gets to see, and what it must not know.

    public text ── words, `training` epochs ──▶ tokenizer, global model (0 epochs: initial weights)
    private text ── draw ──▶ attacked batches ── federation/client.py, H2 … H7 ──▶ updates as the server reads them

With `trained: attention` the clients train (and send) the attention projections alone and the server's
embeddings stay: else the rows of the embedding gradient that are not zero name every word of the batch, and no
attack is needed for that. `precision` is the one that the clients compute in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inversionbench.core.defense import Defense
from inversionbench.core.errors import UserError
from inversionbench.core.recipe import Recipe
from inversionbench.core.seeds import draw_seed, stream
from inversionbench.federation.batches import Batches, read_batches
from inversionbench.federation.senders import attacked_round, price
from inversionbench.models import text
from inversionbench.models._text_names import options_of
from inversionbench.models.text import PAD, Decoder, Tokenizer
from inversionbench.training.loop import fit

if TYPE_CHECKING:
    from inversionbench.core.scenario import Progress, Scenario
    from inversionbench.data.base import Dataset, Part

OWN = ("precision", "trained")  # settings of the protocol that are the track's
LEFT = ("labels",)
TRAINED = {"all": lambda name: True, "attention": lambda name: ".qkv." in name}
START_RECIPE = {"epochs": 0, "batch": 32, "optimiser": "adamw", "rate": 2e-3, "schedule": "one_cycle"}


def batches_of(scenario: Scenario) -> Batches:
    return read_batches(scenario.protocol, scenario.subjects, "protocol", OWN, LEFT)


def publish(
    scenario: Scenario, data: Dataset, defense: Defense, seed: int, progress: Progress | None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
    """What is released, what is true, and the price of the defense."""
    batches, options = batches_of(scenario), options_of(scenario.model)
    tokenizer = text.learn_words(map(str, data.public.x), options["vocabulary"])
    model = global_model(scenario, tokenizer, data, defense, seed, progress)
    utility = held_out(model, tokenizer, data.heldout)
    wanted = sum(batches.sizes)
    if wanted > len(data.private):
        raise UserError(f"subjects: {len(batches.sizes)} clients hold {wanted} sentences, '{data.name}' has "
                        f"{len(data.private)} private ones")  # fmt: skip
    index = torch.randperm(len(data.private), generator=stream(seed, "subjects"))[:wanted]
    flat = tokenizer.encode([str(data.private.x[i]) for i in index.tolist()], options["length"])
    y = text.targets(flat) if options["task"] == "language" else data.private.labels(index.numpy())
    flat, y = defense.training_set(flat, y, stream(seed, "defense", "set"))
    if len(flat) != wanted:
        raise UserError(f"defense '{defense.id}' turns {wanted} sentences into {len(flat)}: none to recover is left")
    x, y = _dealt(flat, batches), _dealt(y, batches)
    prepare(model, scenario.protocol)
    view, sent = attacked_round(model, x, y, batches, defense, len(tokenizer.words), seed)
    released = {
        "state": {n: t.detach().clone() for n, t in model.state_dict().items()},
        "words": list(tokenizer.words),
        "classes": data.classes,
        "updates": {"client": view},
        "defense": defense.public_knowledge() | sent[0].public,
    }
    held = torch.arange(batches.largest) < torch.tensor(batches.sizes)[:, None]
    return released, {"tokens": x.masked_fill(~held[..., None], PAD)}, utility | price(sent, model, view)


def new_model(scenario: Scenario, words: int, classes: int, defense: Defense) -> Decoder:
    """The architecture with its initial weights, drawn from the global generator, with H3."""
    options = options_of(scenario.model)
    return defense.build_model(lambda: Decoder(options, words, classes))  # type: ignore[return-value]


def global_model(
    scenario: Scenario, tokenizer: Tokenizer, data: Dataset, defense: Defense, seed: int, progress: Progress | None
) -> Decoder:
    """The model that the server sends out, trained on public text as `scenario.training` says."""
    recipe = Recipe(**{**START_RECIPE, **scenario.training})
    factory = lambda: new_model(scenario, len(tokenizer.words), data.classes, defense)
    options, rng = options_of(scenario.model), stream(seed, "model")
    if recipe.epochs == 0:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(rng))
            return factory().eval()
    x = tokenizer.encode(map(str, data.public.x), options["length"])
    y = text.targets(x) if options["task"] == "language" else data.public.labels()
    return fit(factory, x, y, data.classes, recipe, rng=rng, progress=progress, description=scenario.name)  # type: ignore[return-value]


def load_model(scenario: Scenario, released: dict[str, Any], defense: Defense) -> Decoder:
    """The model that the server sent out, from what was released."""
    model = new_model(scenario, len(released["words"]), released["classes"], defense).eval()
    prepare(model, scenario.protocol)
    model.load_state_dict(released["state"])
    return model


def prepare(model: nn.Module, protocol: Any) -> None:
    """Bring a model into the clients' precision and hold what they do not train; in place."""
    model.to(getattr(torch, protocol.get("precision", "float64")))
    text.hold(model, TRAINED[protocol.get("trained", "attention")])


@torch.no_grad()
def held_out(model: Decoder, tokenizer: Tokenizer, part: Part) -> dict[str, float]:
    """accuracy (of the next word, or of the class) in [0, 1] and nll in nats on held-out text."""
    x = tokenizer.encode(map(str, part.x), model.length)
    y = text.targets(x) if model.task == "language" else part.labels()
    loss, right, count = 0.0, 0.0, 0
    for bx, by in zip(x.split(128), y.split(128)):
        logits = model(bx).flatten(2).transpose(1, 2).flatten(0, 1) if model.task == "language" else model(bx)
        goal = by.flatten()
        kept = goal != text.IGNORED
        loss += float(nn.functional.cross_entropy(logits[kept], goal[kept], reduction="sum"))
        right += float((logits[kept].argmax(1) == goal[kept]).sum())
        count += int(kept.sum())
    return {"accuracy": right / count, "nll": loss / count}


def _dealt(flat: Tensor, batches: Batches) -> Tensor:
    """Rows (all sentences, ...) to (clients, largest batch, ...); unused places repeat the client's first row."""
    parts = flat.split(batches.sizes)
    return torch.stack([torch.cat([p, p[:1].expand(batches.largest - len(p), *p.shape[1:])]) for p in parts])


def distinct(sentences: list[list[int]], task: str) -> dict[str, int]:
    """What of one batch bounds the search: `tokens` that enter the model, distinct (token, place) `pairs`, and
    distinct `prefixes`. With the language task the last token of a sentence is a target only.
    """
    inputs = [s[:-1] if task == "language" else s for s in sentences]
    return {
        "tokens": sum(map(len, inputs)),
        "pairs": len({(t, p) for s in inputs for p, t in enumerate(s)}),
        "prefixes": len({tuple(s[: p + 1]) for s in inputs for p in range(len(s))}),
    }
