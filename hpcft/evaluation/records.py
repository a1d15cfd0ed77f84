"""What is known of each row so far, kept on disk as it is found, so that a stop or a kill loses one batch at most."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hpcft.disk import write_whole

Record = dict[str, Any]
"""What was found for a row: {"row", "truth", "answer", ...}, values of JSON."""


class Part:
    """The records that one process has found, a line each, below a line that says of what they are."""

    def __init__(self, out: Path, rank: int, of: str) -> None:
        """`out`: the file that the finished evaluation goes to; `of`: hash of all that the records depend on."""
        self._path = out.with_name(f"{out.stem}.part-{rank}.jsonl")
        self._of = of

    def add(self, records: Sequence[Record]) -> None:
        """Put some more behind the others, in one piece; what was of something else goes."""
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        if not _is_of(self._path, self._of):
            self._path.write_text(json.dumps({"of": self._of}) + "\n" + text, encoding="utf-8")
            return
        with self._path.open("rb+") as file:
            file.seek(-1, io.SEEK_END)
            torn = file.read(1) != b"\n"  # a kill in the middle of a line: the next must not stand behind it
            file.write((b"\n" if torn else b"") + text.encode())


def known_records(out: Path, of: str) -> dict[int, Record]:
    """By row: what all processes, of whatever number, have left of an evaluation that was cut; torn lines are none."""
    found: dict[int, Record] = {}
    for path in _parts(out):
        if _is_of(path, of):
            found |= {record["row"]: record for record in _whole_lines(path) if "row" in record}
    return found


def forget(out: Path) -> None:
    """Remove the parts of an evaluation that is finished."""
    for path in _parts(out):
        path.unlink(missing_ok=True)


def write_table(path: Path, records: Sequence[Record]) -> None:
    """A parquet file with a row for each record, `probabilities` as a column for each label."""
    import pandas  # 0.4 s, and only at the end of an evaluation

    rows = []
    for record in records:
        plain = {key: value for key, value in record.items() if key != "probabilities"}
        rows.append({**plain, **{f"p({key})": value for key, value in record.get("probabilities", {}).items()}})
    buffer = io.BytesIO()
    pandas.DataFrame(rows).to_parquet(buffer, index=False)
    write_whole(path, buffer.getvalue())


def read_answers(path: Path) -> tuple[list[str], list[str | None]] | None:
    """Truth and answers in such a file; None where it has none, or is not there."""
    import pandas

    if not path.exists():
        return None
    table = pandas.read_parquet(path)
    if not {"truth", "answer"} <= set(table.columns):
        return None
    return table["truth"].tolist(), [None if pandas.isna(answer) else answer for answer in table["answer"]]


def _parts(out: Path) -> list[Path]:
    return sorted(path for path in out.parent.glob("*.part-*.jsonl") if path.name.startswith(f"{out.stem}.part-"))


def _is_of(path: Path, of: str) -> bool:
    first: Record = next(iter(_whole_lines(path)), {}) if path.exists() else {}
    return first.get("of") == of


def _whole_lines(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                continue
