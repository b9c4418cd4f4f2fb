"""cora: citation graph of 2,708 papers, 1,433 binary word features, 7 classes (graph track; not in section 6).

Files of the Planetoid split (Python 2 pickles; only arrays, sparse matrices and lists are accepted).

With `nodes` > 0 (default 300, the size at which GraphMI is studied): private, evaluation and heldout are
disjoint sets of so many nodes, each grown breadth-first from a random node following at most
`max_neighbours` neighbours of a node; public is the rest of the graph. Every part is the graph induced by its
nodes; edges between parts belong to none. A random third of each part's nodes trains. With `nodes` 0 the
whole graph is private with the Planetoid masks (140 train, 1,000 test) and the other parts are empty.

x: float32 (n, 1433) of 0 and 1. `extra`: `adjacency` bool (n, n), symmetric, zero diagonal; `train` and
`test` bool (n,); `index` (node). Public nodes with the words of a private node (some papers have equal words)
are left out. Labels are known in public.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, Whole
from inversionbench.data import _graphs, _pickles
from inversionbench.data.base import PARTS, Card, DatasetSource, File

SHA256 = {
    "ind.cora.tx": "b9afbaa4a400df991f6f02ef677e1e44da55ffc04801fd02f9e673987829226a",
    "ind.cora.ty": "41f5ac76596a1699cc33f53084a2419e92961c42bb75f36fc38e616d348532ad",
    "ind.cora.allx": "9419ba2f26f5c35243db64aba110e0f35a04851609e0dc5433450676ca6b8543",
    "ind.cora.ally": "2b998f5cc7fedc86e7f97ca2498f47a1ffc1462c29e2d578b23bf3f62b6e7d71",
    "ind.cora.graph": "58f13302f39dde8852dad6fe6d15b89b077b6d7f837626bce671ef80344b383d",
    "ind.cora.test.index": "297ce89af2b51a6a194181c7dbe1796c6a1cf9cd9349a88383b1b1e227867875",
}
SITE = "https://raw.githubusercontent.com/kimiyoung/planetoid/master/data/"


@dataclass(frozen=True)
class Cora(DatasetSource):
    """Cora; options in the module docstring."""

    id = "cora"
    task = "7 topics"
    folders = ("planetoid_cora",)
    card = Card(
        name="Cora (Planetoid)",
        modality="graph",
        source="Z. Yang, W. Cohen, R. Salakhutdinov, github.com/kimiyoung/planetoid",
        terms="MIT for the Planetoid files; cite McCallum 2000 and Sen 2008 for Cora",
        citation="Sen et al.: Collective classification in network data, AI Magazine 2008",
        files=tuple(File(name, sha256=sha256, url=SITE + name) for name, sha256 in SHA256.items()),
        manual_steps="put the files ind.cora.* of the repository's folder data/ into cora/",
    )

    nodes: Whole = 300
    max_neighbours: Count = 12

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        assert root is not None
        x, y, graph, test = _read(root)
        if self.nodes and not 20 <= self.nodes <= len(x) // 4:
            raise UserError(f"data.cora.nodes: expected 0 or 20..{len(x) // 4}, got {self.nodes}")
        parts = self._parts(x, graph, rng)
        for part in PARTS:
            rows = parts[part]
            if self.nodes:
                train = np.isin(np.arange(len(rows)), rng.permutation(len(rows))[: len(rows) // 3])
                tested = ~train
            else:
                train, tested = rows < 140, np.isin(rows, test)
            edges = graph[np.ix_(rows, rows)]
            out.put(part, x[rows], y[rows], adjacency=edges, train=train, test=tested, index=rows)
        edges = {part: int(graph[np.ix_(rows, rows)].sum()) // 2 for part, rows in parts.items()}
        out.meta(classes=int(y.max()) + 1, edges=edges)

    def _parts(self, x: np.ndarray, graph: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        free = np.ones(len(x), bool)
        if not self.nodes:
            none = np.empty(0, np.int64)
            return {part: np.arange(len(x)) if part == "private" else none for part in PARTS}
        parts = {}
        for part in ("private", "evaluation", "heldout"):
            parts[part] = _graphs.grow(graph, free, self.nodes, self.max_neighbours, rng)
        words = {row.tobytes() for row in x[parts["private"]]}
        rest = np.flatnonzero(free)
        parts["public"] = rest[[x[node].tobytes() not in words for node in rest]]
        return parts


def _read(root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features float32 (n, d), classes int64 (n,), adjacency bool (n, n), test nodes."""
    allow = _pickles.ARRAYS | _pickles.SPARSE | _pickles.LISTS
    raw = {}
    for name in ("tx", "ty", "allx", "ally", "graph"):
        path = root / f"ind.cora.{name}"
        raw[name] = _pickles.loads(path.read_bytes(), str(path), allow)
    test = np.array([int(word) for word in (root / "ind.cora.test.index").read_text().split()], np.int64)
    where = str(root)
    x = np.concatenate([_dense(raw["allx"], where), _dense(raw["tx"], where)])
    y = np.concatenate([_pickles.array(raw[n], where) for n in ("ally", "ty")]).argmax(1).astype(np.int64)
    links = _pickles.adjacency(raw["graph"], where)
    first = len(x) - len(test)
    if x.shape[0] != len(y) or sorted(test) != list(range(first, len(x))) or max(links) >= len(x):
        raise UserError(f"{root}: the files ind.cora.* do not belong together; get them again")
    x[test], y[test] = x[first:].copy(), y[first:].copy()  # the last rows are in the order of test.index
    graph = np.zeros((len(x), len(x)), bool)
    for node, others in links.items():
        graph[node, others] = True
    graph |= graph.T
    np.fill_diagonal(graph, False)
    return x, y, graph, test


def _dense(matrix: Any, where: str) -> np.ndarray:
    """A sparse matrix as float32; `check_format` finds index arrays that point outside."""
    from scipy import sparse

    if not sparse.issparse(matrix):
        raise UserError(f"{where}: expected a sparse matrix, got {type(matrix).__name__}")
    try:
        matrix.check_format(full_check=True)
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{where}: damaged sparse matrix ({error})") from error
    return matrix.toarray().astype(np.float32)
