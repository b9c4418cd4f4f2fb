"""Small files in the official layout of the data sets of text, sound, graphs and tables."""

import gzip
import io
import pickle
import wave
from collections import defaultdict

import numpy as np
from official_layouts import save, tar, tree, zipped
from scipy import sparse


def sms_spam(folder, rng, name="SMSSpamCollection"):
    lines = [f"{'spam' if i % 5 == 0 else 'ham'}\tmessage \"{i}\" with\ttab and £ {i * i}" for i in range(60)]
    lines += [lines[3], lines[5], "ham\tOk"]
    save(folder / name, "".join(line + "\n" for line in lines))


def fsdd(folder, rng, packed=False):
    files = {}
    for speaker in ("ann", "bob", "cy", "dan", "eve", "fay"):
        for digit in range(10):
            for take in (0, 5, 24, 25, 49):
                out = io.BytesIO()
                with wave.open(out, "wb") as sound:
                    sound.setnchannels(1)
                    sound.setsampwidth(2)
                    sound.setframerate(8000)
                    clip = rng.integers(-3000, 3000, 300 + 60 * take)
                    clip[:3] = ord(speaker[0]), digit, take  # so that a test can read who it was
                    sound.writeframes(clip.astype("<i2").tobytes())
                files[f"recordings/{digit}_{speaker}_{take}.wav"] = out.getvalue()
    tar(folder / "free_spoken_digits.tar.gz", files) if packed else tree(folder, files)


def cora(folder, rng):
    n, test = 120, rng.permutation(np.arange(100, 120))
    x = (rng.random((n, 60)) < 0.2).astype(np.float32)
    y = np.eye(7, dtype=np.int32)[np.arange(n) % 7]
    x[np.arange(n), 50 + np.arange(n) % 7] = 9  # the words tell the class
    graph = defaultdict(list)
    for a in range(n):
        for b in {(a + 1) % n, int(rng.integers(n)), a if a % 30 == 0 else (a + 7) % n}:
            graph[a].append(int(b))
    parts = {
        "x": sparse.csr_matrix(x[:14]), "y": y[:14], "allx": sparse.csr_matrix(x[:100]), "ally": y[:100],
        "tx": sparse.csr_matrix(x[test]), "ty": y[test], "graph": graph,
    }  # fmt: skip
    for name, value in parts.items():
        save(folder / f"ind.cora.{name}", pickle.dumps(value, 2))
    save(folder / "ind.cora.test.index", "".join(f"{t}\n" for t in test))


def _bank(rng, additional):
    names = ["age", "job", "marital", "education", "default", "housing", "loan", "contact", "month", "duration",
             "campaign", "pdays", "previous", "poutcome"]  # fmt: skip
    if additional:
        names += ["day_of_week", "emp.var.rate", "cons.price.idx", "cons.conf.idx", "euribor3m", "nr.employed"]
    else:
        names += ["balance", "day"]
    words = {
        "job": ["admin.", "services", "unknown"], "marital": ["single", "married", "divorced"],
        "education": ["primary", "tertiary"], "contact": ["cellular", "telephone"], "month": ["may", "jun"],
        "poutcome": ["failure", "success"], "day_of_week": ["mon", "tue"],
    }  # fmt: skip
    rows = []
    for i in range(150):
        row = []
        for name in names:
            if name in ("default", "housing", "loan"):
                row.append(f'"{rng.choice(["yes", "no"])}"')
            elif name in words:
                row.append(f'"{rng.choice(words[name])}"')
            else:
                row.append(f"{18 + i}" if name == "age" else f"{rng.integers(0, 5000) / 10:g}")
        rows.append(";".join([*row, '"yes"' if i % 8 == 0 else '"no"']))
    rows += [rows[4], rows[7]]
    return ("\r\n".join([";".join(f'"{n}"' for n in [*names, "y"]), *rows]) + "\r\n").encode()


def bank_marketing(folder, rng, kind="additional"):
    """Returns the bytes of the csv."""
    data = _bank(rng, kind == "additional")
    if kind == "additional":
        junk = {"__MACOSX/bank-additional/._bank-additional.csv": b"x", "bank-additional/.DS_Store": b"x"}
        zipped(folder / "bank-additional.zip", {**junk, "bank-additional/bank-additional-full.csv": data})
    elif kind == "zip":
        zipped(folder / "bank.zip", {"bank.csv": b"a;b\n", "bank-full.csv": data})
    else:
        save(folder / ("bank-full.csv" + kind), gzip.compress(data) if kind else data)
    return data


def adult(folder, rng):
    work, study, race = ["Private", "State-gov", "?"], ["HS-grad", "Masters"], ["White", "Black", "Other"]
    marital = ["Never-married", "Divorced"]

    def line(i, end):
        row = [17 + i, work[i % 3], rng.integers(10000), study[i % 2], 9 + i % 2, marital[i // 2 % 2],
               "Sales", "Husband", race[i % 3], ["Male", "Female"][i % 2], rng.integers(100), 0, 40,
               "United-States", (">50K" if i % 4 == 0 else "<=50K") + end]  # fmt: skip
        return ", ".join(map(str, row))

    train, test = [line(i, "") for i in range(100)], [line(i, ".") for i in range(100, 150)]
    train.append(train[0])
    save(folder / "adult.data", "\n".join(train) + "\n\n")
    save(folder / "adult.test", "\n".join(["|1x3 Cross validator", *test]) + "\n\n")
