"""What stands below the tables of a scenario: parameters that differ from the published ones, and warnings.

‡ marks a method that ran with other parameters than published: its line names them, and how much of the published
budget it had, where its class declares which fields that is (`budget`). (!) marks a row whose records hold warnings
(`facts["warnings"]`) or answers that do not exist (`facts["failures"]`). Controls have no paper.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inversionbench.core import catalogue, registry
from inversionbench.survey import words

DIFFERS, WARNED = "‡", "(!)"
NEUTRAL = {"strength", "access", "keep_at", "measure", "form", "precision"}  # in a column already, or for curves, speed
NUMBER = re.compile(r"\d+(?:\.\d+)?")
MOST = 4  # parameters beside the budget, and names, in one line
Record = Mapping[str, Any]
Cell = tuple[str, str, float]  # attack, defense, strength


@dataclass(frozen=True)
class Remarks:
    """names: attack -> how it is shown. attacks, defenses: entry -> its line, where it has one; priors: entry -> (its
    line, attacks that use it); warnings: cell -> its sentences, of all seeds."""

    names: Mapping[str, str] = field(default_factory=dict)
    attacks: Mapping[str, str] = field(default_factory=dict)
    defenses: Mapping[str, str] = field(default_factory=dict)
    priors: Mapping[str, tuple[str, Sequence[str]]] = field(default_factory=dict)
    warnings: Mapping[Cell, Sequence[str]] = field(default_factory=dict)

    def attack(self, entry: str, defense: str = "none", strength: float = 0.0) -> str:
        """The marks of an attack against a defense, with a space before each."""
        differs = entry in self.attacks or any(entry in users for _, users in self.priors.values())
        warned = (entry, defense, strength) in self.warnings
        return (f" {DIFFERS}" if differs else "") + (f" {WARNED}" if warned else "")

    def defense(self, entry: str) -> str:
        """The mark of a defense, with a space before it."""
        return f" {DIFFERS}" if entry in self.defenses else ""

    @property
    def of_attacks(self) -> list[str]:
        """The lines below the table of attacks about their parameters and those of their priors."""
        trained = [f"prior {entry} of {self._some(users)}: {line}" for entry, (line, users) in self.priors.items()]
        return [*(f"{self._some(same)}: {line}" for line, same in _by_line(self.attacks)), *trained]

    @property
    def of_defenses(self) -> list[str]:
        return [f"{_some([words.method('defense', d) for d in same])}: {line}" for line, same in
                _by_line(self.defenses)]

    def warned(self, defended: bool) -> list[str]:
        """The sentences of the undefended or of the defended cells, with where they hold; those that differ in numbers
        only as one."""
        alike: dict[str, dict[str, list[Cell]]] = {}
        for cell, sentences in self.warnings.items():
            for sentence in sentences if (cell[1] != "none") == defended else ():
                alike.setdefault(NUMBER.sub("#", sentence), {}).setdefault(sentence, []).append(cell)
        return [f"{self._where([cell for cells in same.values() for cell in cells])}: {_merged([*same])}"
                for same in alike.values()]

    def _some(self, attacks: Iterable[str]) -> str:
        return _some([self.names[attack] for attack in attacks])

    def _where(self, cells: Iterable[Cell]) -> str:
        """Attacks, and the settings of defenses, of some cells."""
        settings = dict.fromkeys((d, s) for _, d, s in cells if d != "none")
        under = _some([f"{words.method('defense', d)} {s:g}" for d, s in settings])
        return self._some(dict.fromkeys(a for a, _, _ in cells)) + (f" under {under}" if under else "")


def of(records: Iterable[Record]) -> Remarks:
    """The remarks about one scenario's records."""
    names, attacks, defenses = {}, {}, {}
    priors: dict[str, tuple[str, list[str]]] = {}
    warnings: dict[Cell, list[str]] = {}
    for record in sorted(records, key=lambda r: r["key"]):
        entry, method, given, cell = record["attack"], record["method"], record["parameters"], place(record)
        names[entry] = words.method("attack", entry, method)
        if said := [*warnings.get(cell, ()), *sentences(record)]:
            warnings[cell] = list(dict.fromkeys(said))
        defense, paid = record["defense"], given.get("defense", {})
        if line := differences("defense", catalogue.method_of("defense", defense), paid):
            defenses[defense] = line
        if record["kind"] == "control":
            continue
        if line := differences("attack", method, given.get("attack", {}), entry != method):
            attacks[entry] = line
        for prior in given.get("priors", {}).values():
            if line := differences("prior", prior["method"], prior):
                users = priors.setdefault(prior["entry"], (line, []))[1]
                users += [entry] if entry not in users else []
    return Remarks(names, attacks, defenses, priors, warnings)


def place(record: Record) -> Cell:
    return record["attack"], record["defense"], float(record["strength"])


def sentences(record: Record) -> list[str]:
    """All that a record warns of, and how many of its answers do not exist."""
    facts, n = record["facts"], len(record["groups"])
    out = list(facts.get("warnings", ()))
    unstarted = n - facts["initialised"] if "initialised" in facts else 0
    if unstarted > 0:
        out.append(f"{unstarted} of {n} answers never started, because nothing was found to begin with; they score as "
                   "noise")
    if (lost := facts.get("failures", 0) - unstarted) > 0:
        out.append(f"{lost} of {n} answers are no finite images; they score as noise")
    return out


def differences(kind: str, method: str, given: Mapping[str, Any], variant: bool = False) -> str:
    """How parameters differ from the published ones; an empty string where they do not.

    variant: an entry with a name of its own, which tells its choices (words, yes or no); its numbers alone count.

    >>> differences("attack", "dlg", {"steps": 100, "restarts": 1, "rate": 0.1, "form": "loop"})
    'steps 100 instead of 300: 1/3 of the published budget; also rate 0.1 (1.0)'
    """
    known = registry.methods(kind).get(method)
    if known is None:
        return ""
    published = {**known.fields, **known.attributes.get("published", {})}
    changed = {name: (given[name], published[name]) for name in known.fields if name in given
               and name not in NEUTRAL and _stated(published[name]) and _differ(given[name], published[name])
               and not (variant and isinstance(given[name], (str, bool)))}
    budget = [name for name in known.attributes.get("budget", ()) if name in changed]
    main = ", ".join(f"{name} {_shown(changed[name][0], True)} instead of {_shown(changed[name][1], True)}"
                     for name in budget)
    share = math.prod(_share(*changed[name]) for name in budget)
    main += f": {_ratio(share)} the published budget" if budget and 0 < share < math.inf else ""
    others = [f"{name.replace('_', ' ')} {_shown(ours)} ({_shown(theirs)})" for name, (ours, theirs) in changed.items()
              if name not in budget]
    return "; also ".join(part for part in (main, _some(others)) if part)


def _stated(value: Any) -> bool:
    """Whether a published value says something: not one that means "found by the method itself"."""
    return value is not registry.REQUIRED and value != "" and not (isinstance(value, (tuple, list)) and not value)


def _differ(ours: Any, theirs: Any) -> bool:
    return (list(ours) if isinstance(ours, (tuple, list)) else ours) != (
        list(theirs) if isinstance(theirs, (tuple, list)) else theirs)


def _share(ours: Any, theirs: Any) -> float:
    """Ours as a part of theirs; of stages, of their sums; infinite where theirs is 0, which means no limit."""
    a, b = (sum(v) if isinstance(v, (tuple, list)) else float(v) for v in (ours, theirs))
    return a / b if b else math.inf


def _ratio(share: float) -> str:
    """
    >>> _ratio(6 * 4000 / (200 * 50000)), _ratio(0.4), _ratio(0.8), _ratio(2.0)
    ('1/420 of', '1/2.5 of', '80 % of', '2 times')
    """
    if share > 1:
        return f"{share:.2g} times"
    if share > 0.5:
        return f"{100 * share:.0f} % of"
    inverse = 1 / share
    return f"1/{float(f'{inverse:.2g}'):,.0f} of" if inverse >= 10 else f"1/{inverse:.2g} of"


def _shown(value: Any, budget: bool = False) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return "no limit" if budget and not value else f"{value:,}"
    if isinstance(value, (tuple, list)):
        return "[" + " ".join(_shown(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return " ".join(str(v) for v in value.values())
    return str(value).replace("_", " ")


def _by_line(lines: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Each line once, with its entries."""
    found: dict[str, list[str]] = {}
    for entry, line in lines.items():
        found.setdefault(line, []).append(entry)
    return list(found.items())


def _merged(sentences: Sequence[str]) -> str:
    """One sentence for several that differ in numbers only.

    >>> _merged(["15 of 20 never started", "4 of 20 never started"])
    '4 to 15 of 20 never started'
    """
    columns = iter([sorted(set(column), key=float) for column in zip(*map(NUMBER.findall, sentences))])
    return NUMBER.sub(lambda _: " to ".join(dict.fromkeys(((c := next(columns))[0], c[-1]))), sentences[0])


def _some(parts: Sequence[str]) -> str:
    left = len(parts) - MOST
    return ", ".join(parts[:MOST]) + (f" and {left} more" if left > 0 else "")
