"""Readers of the file formats in which data sets are published: idx, wav, MATLAB 5, delimited tables."""

from __future__ import annotations

import csv
import io
import wave
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.data import _archives

IDX_LIMIT = 1 << 30  # bytes of one idx file


def idx(path: Path) -> np.ndarray:
    """An idx file of uint8, plain or .gz: magic 0, 0, type 8, number of dimensions, sizes (big endian), data."""
    data = _archives.gunzip(path, IDX_LIMIT)
    if len(data) < 4 or data[:3] != b"\0\0\x08" or not 1 <= data[3] <= 4:
        raise UserError(f"{path}: not an idx file of bytes (starts with {data[:4]!r})")
    start = 4 + 4 * data[3]
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
    if len(data) != start + int(np.prod(shape, dtype=object)):
        raise UserError(f"{path}: header says {shape}, but {max(0, len(data) - start)} bytes follow; get it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def wav(data: bytes, where: str, rate: int) -> np.ndarray:
    """Mono 16-bit PCM as float32 (samples,) in [-1, 1)."""
    try:
        with wave.open(io.BytesIO(data)) as sound:
            form = (sound.getnchannels(), sound.getsampwidth(), sound.getframerate())
            frames, count = sound.readframes(sound.getnframes()), sound.getnframes()
    except (wave.Error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{where}: not a whole PCM wav file ({error})") from error
    if form != (1, 2, rate):
        text = "{} channels, {} bytes a sample, {} Hz".format(*form)
        raise UserError(f"{where}: {text}; expected 1 channel, 2 bytes, {rate} Hz")
    if len(frames) != 2 * count:
        raise UserError(f"{where}: header says {count} samples, {len(frames) // 2} follow; it is cut off")
    return np.frombuffer(frames, "<i2").astype(np.float32) / 32768


def mat(source: Path | bytes, where: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Variables of a MATLAB file up to version 7."""
    from scipy.io import loadmat

    try:
        handle = io.BytesIO(source) if isinstance(source, bytes) else str(source)
        found = loadmat(handle, variable_names=list(names), squeeze_me=True)
    except Exception as error:  # scipy raises many kinds for damaged files
        raise UserError(f"{where}: cannot be read as a MATLAB 5 file ({error})") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"{where}: no variable {', '.join(missing)}")
    return found


def table(text: str, where: str, columns: tuple[str, ...], delimiter: str) -> list[dict[str, str]]:
    """Rows of a delimited table with a header line, as text; columns are checked by name."""
    try:
        return _rows(text, where, columns, delimiter)
    except csv.Error as error:
        raise UserError(f"{where}: damaged table ({error}); get it again") from error


def _rows(text: str, where: str, columns: tuple[str, ...], delimiter: str) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    missing = [c for c in columns if c not in (reader.fieldnames or [])]
    if missing:
        got = ", ".join(reader.fieldnames or []) or "nothing"
        raise UserError(f"{where}: no column {', '.join(missing)}; it has {got}")
    rows = list(reader)
    short = next((i for i, row in enumerate(rows) if None in row or None in row.values()), None)
    if short is not None:
        raise UserError(f"{where}: row {short + 1} has another number of columns than the header")
    return rows


def text(data: bytes, where: str) -> str:
    """UTF-8 text, without the mark that Excel writes before it."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not utf-8 text ({error})") from error
