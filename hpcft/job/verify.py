"""`hpcft verify`, where a job would run: the same steps in one piece and in two, and whether they came to the same.

`python -m hpcft.job.verify FOLDER FIRST LAST RUN`: FOLDER, which is thrown away, holds the recipe; RUN stays as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from hpcft.borrow import borrow
from hpcft.disk import read_json, write_json
from hpcft.job.processes import NodeProcesses
from hpcft.job.workers import find_meeting
from hpcft.rundir import RunDir

LOOK = 0.1
"""Seconds between two looks at the processes."""
DIFFERS = 1
FAILED = 2
"""Exit codes."""


class Piece(NodeProcesses):
    """The processes of a piece."""

    module = "hpcft.train.verify"


@dataclass(frozen=True)
class Result:
    """What a training in one piece or two has come to."""

    steps: list[dict[str, Any]]
    """{step, loss, norm}, the numbers to the last bit."""
    position: dict[str, Any]
    tensors: dict[str, dict[str, str]]
    """SHA-256 by file and name."""

    def sha256(self, kind: str) -> str:
        """Of all tensors of the files that are named so."""
        texts = [f"{name} {digest}" for file in sorted(self.tensors) for name, digest in self.tensors[file].items()
                 if file.startswith(kind)]  # fmt: skip
        return hashlib.sha256("\n".join(texts).encode()).hexdigest()


class Failed(Exception):
    """A process of a piece did not come to its end."""


def main(folder: str, first: str, last: str, run_path: str) -> int:
    """0 if both came to the same, 1 if not, 2 if that could not be found out."""
    begin, end, run = int(first), int(last), RunDir(Path(run_path))
    cut = begin + (end - begin) // 2
    where = f"the checkpoint of step {begin}" if begin else "the start"
    try:
        print(f"steps {begin + 1} to {end} of {run.name} from {where}, in one piece:", flush=True)
        whole = train(Path(folder) / "one", Path(folder), run, [begin, end])
        print(f"the same in two pieces, cut after step {cut}:", flush=True)
        parts = train(Path(folder) / "two", Path(folder), run, [begin, cut, end])
    except Failed as failure:
        print(f"hpcft: {run.name} is not verified: {failure}", file=sys.stderr)
        return FAILED
    difference = compare(whole, parts, cut)
    if difference:
        print(f"{run.name} is not exact: {difference}", flush=True)
        return DIFFERS
    hashes = f"weights (SHA-256 {whole.sha256('model')[:16]}) and optimizer ({whole.sha256('optimizer')[:16]})"
    same = f"{len(whole.steps)} losses and gradient norms, {hashes} are the same to the last bit"
    print(f"{run.name} is bit-exact: {same}, cut after step {cut} or not.", flush=True)
    return 0


def train(path: Path, folder: Path, run: RunDir, steps: list[int]) -> Result:
    """What the training between these steps came to, a new process for each stretch. Raises Failed."""
    path.mkdir()
    own = RunDir(path)
    shutil.copy(folder / "recipe.json", path)
    borrow(run, own, steps[0])
    done: list[dict[str, Any]] = []
    for number, (first, last) in enumerate(pairwise(steps), 1):
        job = own.job(number)
        job.path.mkdir(parents=True)
        write_json(job.path / "piece.json", {"first": first, "last": last, "of": str(run.path)})
        run_piece(own, number)
        done += (read_json(job.path / "done.json") or {})["steps"]
    newest = own.checkpoints / f"step-{own.saved_steps()[-1]:08d}"
    state = json.loads((newest / "state.json").read_bytes())
    result = Result(done, state["position"], {file.stem: hashes(file) for file in newest.glob("*.safetensors")})
    shutil.rmtree(own.checkpoints)  # room for the next
    return result


def run_piece(own: RunDir, number: int) -> None:
    """Train one piece, in as many processes as a job of one node has. Raises Failed."""
    scratch = tempfile.mkdtemp(prefix="hpcft-")
    piece = Piece(own, own.job(number), own.recipe, Path(scratch), internet=False)
    try:
        piece.start(os.environ, find_meeting(1), sys.stdout.buffer)
        while len(ended := piece.ended()) < own.recipe.processes and not any(ended.values()):
            time.sleep(LOOK)
        if failed := [code for code in ended.values() if code]:
            raise Failed(f"a process ended with code {failed[0]}.")
    finally:
        piece.kill()
        shutil.rmtree(scratch, ignore_errors=True)


def hashes(path: Path) -> dict[str, str]:
    """SHA-256 of each tensor of a safetensors file, by name: 8 bytes of length, a JSON header, the tensors' bytes."""
    found = {}
    with path.open("rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        for name, facts in sorted(header.items()):
            begin, end = facts["data_offsets"]
            file.seek(8 + size + begin)
            digest, left = hashlib.sha256(f"{facts['dtype']} {facts['shape']}".encode()), end - begin
            while left:
                block = file.read(min(left, 1 << 20))
                digest.update(block)
                left -= len(block)
            found[name] = digest.hexdigest()
    return found


def compare(whole: Result, parts: Result, cut: int) -> str:
    """Where the two differ first, in words, and what that means; empty if nowhere."""
    for one, two in zip(whole.steps, parts.steps, strict=True):
        for key, name in (("loss", "loss"), ("norm", "gradient norm")):
            if one[key] != two[key]:
                numbers = f"{float.fromhex(one[key])!r} in one piece and {float.fromhex(two[key])!r} in two"
                return (
                    f"they differ first at step {one['step']}, whose {name} is {numbers}. {_meaning(one['step'], cut)}"
                )
    for file in sorted(whole.tensors.keys() | parts.tensors.keys()):
        mine, theirs = whole.tensors.get(file, {}), parts.tensors.get(file, {})
        if other := sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)):
            last, more = whole.steps[-1]["step"], f" and {len(other) - 1} more" if other[1:] else ""
            return (
                f"all losses are equal, and after step {last} {file} differs in {other[0]}{more}. {_meaning(last, cut)}"
            )
    if other := sorted(key for key in whole.position if whole.position[key] != parts.position.get(key)):
        return f"all tensors are equal, and the position differs in {', '.join(other)}."
    return ""


def _meaning(step: int, cut: int) -> str:
    if step <= cut:
        return f"That is before the cut after step {cut}: something is drawn or added up otherwise each time."
    return f"That is after the cut after step {cut}: something is in no checkpoint, or depends on the process."


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.exit(code)
