"""clinical_notes: generated one-sentence notes of a hospital. No download, no network, no real patient.

Six kinds of note, each one template of 12 to 14 words and signs whose slots are filled independently and
uniformly; about 600 different words. Names and drugs are made of syllables (`NAMES`, `DRUGS`) and mean nobody and
nothing. What an attack recovers here is what a real note would have given away: who, how old, what drug.

The class y is the kind of note. No sentence occurs twice. Options: number of notes of each part.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.ranges import Count
from inversionbench.data import _table
from inversionbench.data.base import PARTS, Card, DatasetSource

_FIRST = (
    "bel", "cor", "dan", "fen", "gar", "hol", "jas", "kel", "lor", "mar", "nor", "pel", "ras", "sel", "tor", "val",
)  # fmt: skip
_LAST = ("a", "ara", "ard", "en", "ik", "ine", "ov", "ton")
_STEM = ("abri", "celv", "doxo", "fumi", "glav", "lomi", "mirv", "navo", "prel", "zelo")
_ENDING = ("axin", "ibor", "olan", "umet", "esil", "arac", "ontin", "ipha")
NAMES = tuple(a + b for a in _FIRST for b in _LAST)
DRUGS = tuple(a + b for a in _STEM for b in _ENDING)
SLOTS: dict[str, tuple[str, ...]] = {
    "name": NAMES,
    "drug": DRUGS,
    "age": tuple(map(str, range(18, 96))),
    "dose": ("5", "10", "15", "20", "25", "40", "50", "75", "80", "100", "150", "200", "250", "400", "500"),
    "room": tuple(map(str, range(101, 141))),
    "value": tuple(map(str, range(2, 62))),
    "day": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    "month": (
        "january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
        "november", "december",
    ),
    "times": ("once", "twice", "thrice"),
    "severity": ("mild", "moderate", "severe", "sudden", "recurrent", "worsening"),
    "side": ("left", "right", "upper", "lower"),
    "trend": ("rising", "falling", "stable", "improving", "abnormal", "normal"),
    "unit": ("mmol", "units", "grams", "percent"),
    "ward": (
        "cardiology", "neurology", "oncology", "surgery", "urology", "dermatology", "psychiatry", "geriatrics",
        "nephrology", "pulmonology", "hematology", "orthopedics", "ophthalmology", "rheumatology", "emergency",
    ),
    "symptom": (
        "headache", "nausea", "vomiting", "dizziness", "fever", "chills", "cough", "fatigue", "palpitations",
        "fainting", "numbness", "tremor", "weakness", "confusion", "insomnia", "cramps", "swelling", "bleeding",
        "itching", "rash", "hoarseness", "wheezing", "heartburn", "hiccups", "bloating", "sweating", "thirst",
        "drowsiness", "stiffness", "tingling", "anxiety", "earache", "toothache", "backache", "bruising", "pallor",
        "sneezing", "snoring",
    ),
    "condition": (
        "asthma", "diabetes", "hypertension", "epilepsy", "migraine", "arthritis", "gout", "anemia", "pneumonia",
        "bronchitis", "hepatitis", "gastritis", "colitis", "psoriasis", "eczema", "depression", "dementia", "glaucoma",
        "cataract", "osteoporosis", "sinusitis", "tonsillitis", "meningitis", "sepsis", "angina", "arrhythmia",
        "thrombosis", "embolism", "stroke", "influenza", "measles", "shingles", "malaria", "tuberculosis", "lymphoma",
        "leukemia", "melanoma", "cirrhosis", "pancreatitis", "appendicitis", "cystitis", "nephritis", "obesity",
        "hypothyroidism", "endometriosis", "sciatica", "scoliosis", "tendinitis", "vertigo", "vasculitis",
    ),
    "site": (
        "knee", "hip", "shoulder", "elbow", "wrist", "ankle", "skull", "spine", "chest", "abdomen", "pelvis", "neck",
        "jaw", "lung", "kidney", "liver", "spleen", "bladder", "stomach", "thigh", "forearm", "hand", "foot", "heel",
        "rib", "femur", "tibia", "clavicle",
    ),
    "finding": (
        "fracture", "effusion", "lesion", "nodule", "cyst", "abscess", "edema", "stenosis", "calcification",
        "hemorrhage", "dislocation", "tear", "mass", "scar", "inflammation", "ulcer", "polyp", "hernia", "stone",
        "atrophy",
    ),
    "procedure": (
        "biopsy", "dialysis", "transfusion", "bypass", "angioplasty", "endoscopy", "colonoscopy", "laparoscopy",
        "catheterization", "intubation", "amputation", "transplantation", "chemotherapy", "radiotherapy",
        "physiotherapy", "vaccination", "drainage", "suturing", "casting", "debridement", "ablation", "stenting",
        "tracheotomy", "arthroscopy", "mastectomy",
    ),
    "test": (
        "glucose", "sodium", "potassium", "calcium", "creatinine", "hemoglobin", "cholesterol", "bilirubin", "albumin",
        "ferritin", "troponin", "lactate", "magnesium", "phosphate", "insulin", "cortisol",
    ),
}  # fmt: skip
TEMPLATES = {
    "admission": "patient {name} , age {age} , admitted {day} to {ward} with {severity} {symptom}",
    "prescription": "{name} started on {drug} {dose} mg {times} daily for {condition} since {month}",
    "imaging": "scan of the {side} {site} of {name} shows {finding} and no swelling there",
    "laboratory": "{name} , age {age} , {test} was {value} {unit} on {day} , {trend}",
    "discharge": "{name} discharged from room {room} on {day} after {procedure} , takes {drug}",
    "referral": "we refer {name} , age {age} , to {ward} for {procedure} because of {condition}",
}
SURPLUS = 1.2  # notes drawn for each one wanted, since repeated ones are left out


@dataclass(frozen=True)
class ClinicalNotes(DatasetSource):
    """Generated notes; the grammar is in the module."""

    id = "clinical_notes"
    task = "6 kinds of note"
    card = Card(
        name="Generated clinical notes",
        modality="text",
        source="drawn by this package from a seed",
        terms="no real patient; same licence as this package",
        notes="Names and drugs are invented from syllables.",
        embedded=True,
    )

    private: Count = 3000
    public: Count = 3000
    evaluation: Count = 300
    heldout: Count = 600

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        sizes = {part: getattr(self, part) for part in PARTS}
        n = sum(sizes.values())
        parts = _table.deal("data.clinical_notes", n, sizes, rng)
        text, y = notes(round(SURPLUS * n) + 20, rng)
        first = np.sort(np.unique(text, return_index=True)[1])[:n]
        assert len(first) == n, f"only {len(first)} of {n} notes differ: raise SURPLUS"
        text, y = text[first], y[first]
        for part, rows in parts.items():
            out.put(part, text[rows], y[rows])
        out.meta(classes=len(TEMPLATES), class_names=list(TEMPLATES))


def notes(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(sentences, str (n,); kinds, int64 (n,)), kinds equally likely."""
    kind = rng.integers(len(TEMPLATES), size=n)
    templates = list(TEMPLATES.values())
    drawn = {slot: rng.choice(words, n) for slot, words in SLOTS.items()}
    text = [templates[k].format(**{slot: words[i] for slot, words in drawn.items()}) for i, k in enumerate(kind)]
    return np.array(text, np.str_), kind.astype(np.int64)
