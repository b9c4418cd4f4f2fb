"""Image-iterations per second of gradient matching, one thread, beside a plain loop over the trials.

    uv run python benchmarks/gradient_matching.py [--iterations 100] [--trials 8] [--repeats 3] [--batches 1 4]
        [--victims lenet convnet8 convnet16] [--compiled] [--bfloat16] [--lbfgs 6] [--device cuda] [--json]
        [--out FILE] [--check]

The plain loop is what one writes first: one trial after the other, torch.autograd.grad with create_graph, a sum
over the layers for the cosine, loss.backward(), torch.optim.Adam on the signed gradient. Ours is the search that
the attacks run, in each batched form. All start from the same images and run the same iterations of Inverting
Gradients; rates are per CPU second, best of the repeats, the forms taking turns. PSNR says that all of them do
the same work. Peak memory is that of the tensors alive at once (of a compiled form it is not seen). For L-BFGS
(DLG) the plain loop is one torch.optim.LBFGS per trial.

--device: by default that of `core.device`. On a GPU rates are per second of wall time, after waiting for the
device, and at the end the number of trials is doubled until it runs out of memory: one more line per victim and
batch says how many fit ("trials", beside "stopped": what ended the doubling) and how fast these are.

--out: all lines as one JSON file, with the hardware and the versions that they were measured on.
--check: exit status 1 if PSNR differs by more than 0.1 dB, a ratio is below 1, or the chosen form misses its
bar of one CPU thread: 4 for LeNet at batch 1 (7 compiled), 2 for the 16-64-channel ConvNet at batch 1, 2.5 for L-BFGS.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from measuring import clock, hardware, memory, take_turns
from torch import Tensor
from torch.nn import functional as F

from inversionbench.core.device import device
from inversionbench.core.protocol import Protocol
from inversionbench.data.prepare import prepare
from inversionbench.gradients.lbfgs import LBFGS
from inversionbench.gradients.matching import objective
from inversionbench.gradients.objectives import Matching
from inversionbench.gradients.schedules import factor
from inversionbench.gradients.search import adam
from inversionbench.gradients.simulate import simulator
from inversionbench.models.federated import Victim, build

VICTIMS = {  # model, rate, weight of the total variation
    "lenet": ({"name": "lenet", "activation": "sigmoid", "init": "uniform"}, 0.3, 0.05),
    "lenet_relu": ({"name": "lenet", "activation": "relu", "init": "default"}, 0.3, 0.05),
    "convnet8": ({"name": "convnet", "widths": [8, 16, 32]}, 0.1, 0.01),
    "convnet16": ({"name": "convnet", "widths": [16, 32, 64]}, 0.1, 0.01),
}
BARS = {("lenet", 1, "auto"): 4.0, ("lenet", 1, "compiled"): 7.0, ("convnet16", 1, "auto"): 2.0}
BAR_LBFGS, SAME = 2.5, 0.1
MOST = 1 << 20  # trials, where the doubling ends


@dataclass(frozen=True)
class Case:
    """One victim, the private batches x (trials, batch, c, h, w) in [0, 1] with labels, and the start."""

    model: Victim
    x: Tensor
    y: Tensor
    start: Tensor
    rate: float
    tv: float

    @property
    def box(self) -> tuple[float, float]:
        return self.model.front.box

    def gradients(self) -> list[list[Tensor]]:
        """Each trial's observed gradient."""
        own = list(self.model.parameters())
        return [list(torch.autograd.grad(F.cross_entropy(self.model(x), y), own)) for x, y in zip(self.x, self.y)]

    def psnr(self, found: Tensor) -> float:
        """Mean PSNR of normalised images, in the order of the slots (all forms start alike)."""
        images = self.model.front.pixels(found).clamp(0, 1)
        return float((-10 * (images - self.x).square().flatten(2).mean(2).log10()).mean())


def plain(case: Case, iterations: int) -> Tensor:
    """Inverting Gradients, one trial after the other."""
    parameters, out = list(case.model.parameters()), []
    for target, y, start in zip(case.gradients(), case.y, case.start):
        x = start.clone().requires_grad_()
        optimiser = torch.optim.Adam([x], lr=case.rate)
        best, best_loss = x.detach().clone(), float("inf")
        for t in range(iterations):
            optimiser.param_groups[0]["lr"] = case.rate * factor("drops", t, iterations)
            optimiser.zero_grad()
            loss = F.cross_entropy(case.model.body(x), y)
            dummy = torch.autograd.grad(loss, parameters, create_graph=True)
            product = sum((a * b).sum() for a, b in zip(dummy, target))
            norms = sum(a.square().sum() for a in dummy).sqrt() * sum(b.square().sum() for b in target).sqrt()
            rough = (x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., 1:, :] - x[..., :-1, :]).abs().mean()
            value = 1 - product / norms + case.tv * rough
            value.backward()
            if value.item() < best_loss:
                best, best_loss = x.detach().clone(), value.item()
            x.grad.sign_()
            optimiser.step()
            with torch.no_grad():
                x.clamp_(*case.box)
        out.append(best)
    return torch.stack(out)


def ours(case: Case, iterations: int, form: str, precision: str = "float32") -> Callable[[], Tensor]:
    """The same as the attacks run it; simulators are made, and compiled, before the clock starts."""
    client = simulator(case.model, Protocol(batch_size=case.x.shape[1]), form, precision)
    names = [n for n, _ in case.model.named_parameters()]
    observed = client.layout.flatten({n: torch.stack(parts) for n, parts in zip(names, zip(*case.gradients()))})
    evaluate = objective(client, Matching(observed), F.one_hot(case.y, case.model.classes).float(), case.tv)
    adam(case.start, evaluate, 2, case.rate)
    return lambda: adam(case.start, evaluate, iterations, case.rate, box=case.box).x


def plain_lbfgs(case: Case, steps: int) -> Tensor:
    """DLG with known labels, one torch.optim.LBFGS per trial."""
    parameters, out = list(case.model.parameters()), []
    for target, y, start in zip(case.gradients(), case.y, case.start):
        x = start.clone().requires_grad_()
        optimiser = torch.optim.LBFGS([x])

        def closure(x: Tensor = x, y: Tensor = y, target: list[Tensor] = target, o=optimiser) -> Tensor:
            o.zero_grad()
            dummy = torch.autograd.grad(F.cross_entropy(case.model.body(x), y), parameters, create_graph=True)
            loss = torch.stack([(a - b).square().sum() for a, b in zip(dummy, target)]).sum()
            loss.backward()
            return loss

        for _ in range(steps):
            optimiser.step(closure)
        out.append(x.detach())
    return torch.stack(out)


def our_lbfgs(case: Case, steps: int) -> Tensor:
    client = simulator(case.model, Protocol(batch_size=case.x.shape[1]))
    names = [n for n, _ in case.model.named_parameters()]
    observed = client.layout.flatten({n: torch.stack(parts) for n, parts in zip(names, zip(*case.gradients()))})
    matching, y = Matching(observed, "l2"), F.one_hot(case.y, case.model.classes).float()

    def closure(flat: Tensor) -> tuple[Tensor, Tensor]:
        flat = flat.detach().requires_grad_()
        loss = matching(client(flat.view_as(case.start), y))
        return loss.detach(), torch.autograd.grad(loss.sum(), flat)[0]

    optimiser = LBFGS(case.start.flatten(1))
    for _ in range(steps):
        optimiser.step(closure)
    return optimiser.x.view_as(case.start)


def case_of(victim: str, batch: int, trials: int, where: torch.device) -> Case:
    spec, rate, tv = VICTIMS[victim]
    with tempfile.TemporaryDirectory() as folder:
        options = {"private": 12, "public": 1, "evaluation": 1, "heldout": 1}
        data = prepare("photos", options, None, Path(folder) / "photos")
        x, y = data.private.images(slice(0, trials * batch)), data.private.labels(slice(0, trials * batch))
    model = build(spec, data.shape, data.classes, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    shape = (trials, batch, *data.shape)
    start = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    x, y, start = (t.to(where) for t in (x.view(shape), y.view(trials, batch), start))
    return Case(model.to(where), x, y, start, rate, tv)


def measure(victim: str, batch: int, args: argparse.Namespace) -> list[dict[str, object]]:
    """One line per form; the first is the plain loop."""
    case = case_of(victim, batch, args.trials, args.device)
    forms = ["auto", "im2col", "grouped", "vmap", *(["compiled"] if args.compiled else [])]
    makers: dict[str, Callable[[int], Callable[[], Tensor]]] = {"plain": lambda n: lambda: plain(case, n)}
    for form in forms:
        makers[form] = lambda n, form=form: ours(case, n, form)
    if args.bfloat16:
        makers["auto, bfloat16"] = lambda n: ours(case, n, "auto", "bfloat16")
    runs = {name: make(args.iterations) for name, make in makers.items()}
    seconds, found = take_turns(runs, args.repeats, args.device)
    count = args.iterations * args.trials * batch
    return [
        {
            "case": f"{victim}, batch {batch}", "victim": victim, "batch": batch, "form": name,
            "rate": count / seconds[name], "ratio": seconds["plain"] / seconds[name],
            "psnr": case.psnr(found[name]), "memory_mib": 0.0 if name == "compiled" else memory(make(2), args.device),
        }
        for name, make in makers.items()
    ]  # fmt: skip


def measure_lbfgs(args: argparse.Namespace) -> list[dict[str, object]]:
    case = case_of("lenet", 1, args.trials, args.device)
    runs = {"plain": lambda: plain_lbfgs(case, args.lbfgs), "batched": lambda: our_lbfgs(case, args.lbfgs)}
    seconds, found = take_turns(runs, max(1, args.repeats - 1), args.device)
    return [
        {
            "case": "lenet, L-BFGS", "victim": "lenet", "batch": 1, "form": name,
            "rate": 20 * args.lbfgs * args.trials / seconds[name], "ratio": seconds["plain"] / seconds[name],
            "psnr": case.psnr(found[name]), "memory_mib": memory(run, args.device),
        }
        for name, run in runs.items()
    ]  # fmt: skip


def most_trials(victim: str, batch: int, args: argparse.Namespace) -> dict[str, object]:
    """How many trials at once the device has memory for: a power of 2, and how fast they are."""
    one, trials, rate, peak, stopped = case_of(victim, batch, 1, args.device), 0, 0.0, 0.0, "the limit"
    while max(1, 2 * trials) <= MOST:
        n = max(1, 2 * trials)
        try:
            search = many(one, n)
            search(2)
            torch.cuda.reset_peak_memory_stats(args.device)
            start = clock(args.device)
            search(5)
            seconds = clock(args.device) - start
        except RuntimeError as error:  # out of memory is one; kernels with too many blocks are others
            stopped = str(error).splitlines()[0]
            break
        trials, rate, peak = n, 5 * n * batch / seconds, torch.cuda.max_memory_allocated(args.device) / 2**20
        torch.cuda.empty_cache()
    torch.cuda.empty_cache()
    return {
        "case": f"{victim}, batch {batch}", "victim": victim, "batch": batch, "form": "most trials", "trials": trials,
        "rate": rate, "memory_mib": peak, "stopped": stopped,
    }  # fmt: skip


def many(one: Case, trials: int) -> Callable[[int], Tensor]:
    """The search of `ours` over copies of one trial, by its number of iterations."""
    client = simulator(one.model, Protocol(batch_size=one.x.shape[1]))
    names, parts = [n for n, _ in one.model.named_parameters()], one.gradients()[0]
    observed = client.layout.flatten({n: t[None] for n, t in zip(names, parts)}).expand(trials, -1)
    y = F.one_hot(one.y, one.model.classes).float().expand(trials, -1, -1)
    case = replace(one, start=one.start.repeat(trials, 1, 1, 1, 1))
    evaluate = objective(client, Matching(observed), y, one.tv)
    return lambda iterations: adam(case.start, evaluate, iterations, one.rate, box=one.box).x


def misses(lines: list[dict[str, object]], where: torch.device) -> list[str]:
    """What falls short of its bar."""
    out = []
    reference = {line["case"]: line for line in lines if line["form"] == "plain"}
    for line in lines:
        ratio, name = float(line["ratio"]), f"{line['case']}, {line['form']}"  # type: ignore[arg-type]
        lbfgs, form = "L-BFGS" in str(line["case"]), str(line["form"])
        bar = BARS.get((str(line["victim"]), int(line["batch"]), form), 1.0 if form == "auto" else 0.0)  # type: ignore[call-overload]
        if form == "batched":
            bar = BAR_LBFGS
        bar = bar if where.type == "cpu" else min(bar, 1.0)
        if ratio < bar:
            out.append(f"{name}: {ratio:.2f} times the plain loop, the bar is {bar}")
        apart = abs(float(line["psnr"]) - float(reference[line["case"]]["psnr"]))  # type: ignore[arg-type]
        if not lbfgs and apart > SAME:
            out.append(f"{name}: PSNR differs by {apart:.2f} dB")
    return out


def _row(line: dict[str, object]) -> str:
    if "trials" in line:
        words = "{rate:10.0f} {trials} trials at once, {memory_mib:.0f} MiB, then: {stopped}".format_map(line)
        return f"{line['case']:22s} {line['form']:16s} {words}"
    numbers = "{rate:10.0f} {ratio:6.2f} {psnr:6.2f} {memory_mib:6.0f}".format_map(line)
    return f"{line['case']:22s} {line['form']:16s} {numbers}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=["lenet", "convnet8", "convnet16"])
    parser.add_argument("--lbfgs", type=int, default=6, help="outer steps; 0 leaves it out")
    for flag in ("compiled", "bfloat16", "json", "check"):
        parser.add_argument(f"--{flag}", action="store_true")
    parser.add_argument("--device", type=torch.device, default=device())
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines: list[dict[str, object]] = []
    if not args.json:
        print(f"{'case':22s} {'form':16s} {'image-it/s':>10s} {'ratio':>6s} {'PSNR':>6s} {'MiB':>6s}")
    cells = [(v, b) for v in args.victims for b in args.batches]
    for victim, batch in [*cells, *[("", 0)] * bool(args.lbfgs)]:
        for line in measure(victim, batch, args) if victim else measure_lbfgs(args):
            lines.append(line)
            print(json.dumps(line) if args.json else _row(line), flush=True)
    short = misses(lines, args.device)
    if args.device.type == "cuda":  # last, because running out of memory may leave the device in disorder
        for victim, batch in cells:
            lines.append(most_trials(victim, batch, args))
            print(json.dumps(lines[-1]) if args.json else _row(lines[-1]), flush=True)
    if args.out:
        rounded = [{k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()} for line in lines]
        settings = {k: v for k, v in vars(args).items() if k not in ("out", "device")}
        about = {"hardware": hardware(args.device), "settings": settings}
        args.out.write_text(json.dumps({**about, "missed": short, "lines": rounded}, indent=1) + "\n")
    for text in short:
        print(text, file=sys.stderr)
    return int(bool(short) and args.check)


if __name__ == "__main__":
    sys.exit(main())
