"""sms_spam: 5,574 English text messages, 4,827 ham and 747 spam (text track; not in survey section 6).

Exact repetitions (several hundred, mostly of advertising) are dropped before the split, so no message is in
two parts; near-repetitions of advertising texts remain. Labels: ham 0, spam 1, known in public too. Options:
public_share, evaluation_share, heldout_share (of each class), min_words (shorter messages are dropped),
private, public, evaluation, heldout (largest number of messages, classes taking turns; 0: all).
`extra`: `index` (line of the file).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, Share, Whole
from inversionbench.data import _classed, _formats, _split, sources
from inversionbench.data.base import PARTS, Card, DatasetSource, File

SHA256 = "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"
LABELS = ("ham", "spam")


@dataclass(frozen=True)
class SmsSpam(DatasetSource):
    """SMS Spam Collection; options in the module docstring."""

    id = "sms_spam"
    task = "ham, spam"
    card = Card(
        name="SMS Spam Collection",
        modality="text",
        source="T. A. Almeida, J. M. Gomez Hidalgo, UCI machine learning repository, id 228",
        terms="CC BY 4.0",
        citation="Almeida, Gomez Hidalgo, Yamakami: Contributions to the study of SMS spam filtering, 2011",
        files=(
            File("SMSSpamCollection", size=477907, sha256=SHA256),
            File("sms.tsv", size=477907, sha256=SHA256),
        ),
        manual_steps="put SMSSpamCollection (from the archive of the UCI page; also named sms.tsv) into sms_spam/",
        notes="majority accuracy 87 %",
    )

    release: str = "auto"
    public_share: Share = 0.5
    evaluation_share: Share = 0.1
    heldout_share: Share = 0.1
    min_words: Count = 1
    private: Whole = 0
    public: Whole = 0
    evaluation: Whole = 0
    heldout: Whole = 0

    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"uci": ("SMSSpamCollection",), "tsv": ("sms.tsv",)}

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        assert root is not None
        path = root / self.needs()[sources.release_of(self, root)][0]
        lines = _formats.text(path.read_bytes(), str(path)).split("\n")
        pairs = [line.rstrip("\r").split("\t", 1) for line in lines if line.strip()]
        if any(len(pair) != 2 or pair[0] not in LABELS for pair in pairs):
            raise UserError(f"{path}: expected lines 'ham<TAB>text' or 'spam<TAB>text'; get the file again")
        text = np.array([pair[1] for pair in pairs], np.str_)
        y = np.array([LABELS.index(pair[0]) for pair in pairs], np.int64)
        first = np.sort(np.unique(text, return_index=True)[1])
        rows = first[[len(text[i].split()) >= self.min_words for i in first]]
        shares = {"public": self.public_share, "evaluation": self.evaluation_share}
        parts = _split.deal(rows, y, rng, {**shares, "heldout": self.heldout_share})
        parts = _classed.limited(self, {part: _split.robin(parts[part], y, rng) for part in PARTS})
        for part, chosen in parts.items():
            out.put(part, text[chosen], y[chosen], index=chosen)
        out.meta(classes=2, class_names=list(LABELS), repeated=len(pairs) - len(first))
