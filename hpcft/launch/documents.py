"""`hpcft data csv`: a folder of documents as train.csv and validation.csv, one document a row."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hpcft.errors import Fault, UserError
from hpcft.textrows import LONGEST

ENDINGS = (".txt", ".md")
NAMES = ("train.csv", "validation.csv")


@dataclass(frozen=True)
class Written:
    """What was made."""

    paths: tuple[Path, ...]
    rows: tuple[int, ...]
    """In each of them."""
    empty: int
    """Documents that hold nothing but blanks, and were left out."""
    repeated: int
    """Documents that say the same as another, and were left out."""


def write_csv(
    folder: Path, out: Path, validation: float = 0.1, seed: int = 0, endings: tuple[str, ...] = ENDINGS
) -> Written:
    """train.csv and validation.csv in `out`, of all documents below a folder: columns `text` and `document`, its path.

    Line breaks and quotes stay what they are, inside quotes. Which documents are held out hangs on what they say and on
    the seed. Raises UserError with every document that cannot be used; nothing is written then.
    """
    paths = documents(folder, endings)
    if taken := [out / name for name in NAMES if (out / name).exists()]:
        raise UserError(
            [Fault(str(path), "exists.", "Name another folder with --out, or remove it.") for path in taken]
        )
    known: dict[bytes, Path] = {}
    empty = 0
    faults: list[Fault] = []
    for path in paths:
        try:
            text = read_document(path)
        except UserError as error:
            faults += error.faults
            continue
        if text.strip():
            known.setdefault(_chance(text, seed), path)
        else:
            empty += 1
    if not faults and len(known) < 2:
        faults.append(Fault(str(folder), f"holds {len(known)} documents with text; two are the least."))
    if faults:
        raise UserError(faults)
    held = min(len(known) - 1, max(1, round(validation * len(known)))) if validation else 0
    parts = [sorted(known[chance] for chance in some) for some in (sorted(known)[held:], sorted(known)[:held])]
    made = tuple((out / name, part) for name, part in zip(NAMES, parts, strict=True) if part)
    out.mkdir(parents=True, exist_ok=True)
    for target, part in made:
        _write(target, folder, part)
    targets, sizes = tuple(path for path, _ in made), tuple(len(part) for _, part in made)
    return Written(targets, sizes, empty, len(paths) - empty - len(known))


def documents(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """The documents below a folder, by path. Raises UserError: there are none."""
    if not folder.is_dir():
        raise UserError(Fault(str(folder), "is no folder.", "Name a folder of documents."))
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    if found := [path for path in files if path.suffix in endings]:
        return found
    others = Counter(path.suffix or "without ending" for path in files)
    there = ", ".join(f"{count} {ending}" for ending, count in others.items())
    what = f"holds no document that ends in {' or '.join(endings)}; there are: {there or 'no files'}."
    raise UserError(Fault(str(folder), what, "Name another ending with --ending."))


def read_document(path: Path) -> str:
    """The text of a document, its line breaks as they are. Raises UserError: unreadable, not UTF-8, too long."""
    try:
        data = path.read_bytes()
        if len(data) > LONGEST:
            what = f"has {len(data):,} bytes; {LONGEST:,} is the most."
            raise UserError(Fault(str(path), what, "Cut it into several documents."))
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UserError(Fault(str(path), f"cannot be read: {(error.strerror or str(error)).lower()}.")) from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        what = f"is no UTF-8 text: line {line} has the byte 0x{data[error.start]:02x}."
        raise UserError(Fault(str(path), what, "Save it as UTF-8.")) from None


def _chance(text: str, seed: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16, key=str(seed).encode()).digest()


def _write(target: Path, folder: Path, part: list[Path]) -> None:
    writing = target.with_name(f".{target.name}.part")
    with contextlib.ExitStack() as stack:
        stack.callback(writing.unlink, missing_ok=True)
        file = stack.enter_context(writing.open("w", encoding="utf-8", newline=""))
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(["text", "document"])
        for path in part:
            writer.writerow([read_document(path), str(path.relative_to(folder))])
        file.flush()
        os.fsync(file.fileno())
        writing.replace(target)
