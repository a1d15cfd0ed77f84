"""A matrix submitted: a run each, as many of them queued as there is room for; the others wait for one to end."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcft.disk import locked, read_json, write_json
from hpcft.errors import Fault, UserError
from hpcft.launch import chain, local
from hpcft.launch.plan import Plan, first_jobs
from hpcft.launch.scheduler import scheduler
from hpcft.rundir import RunDir, find_runs, make_root

LOCK = ".matrix.lock"
"""In the folder of all runs: held by who makes runs of a matrix, or starts one that waits."""
PATIENCE = 60.0
"""Seconds to wait for it."""


@dataclass(frozen=True)
class Placed:
    """A run of a matrix, after a submit of it."""

    run: RunDir
    before: bool
    """Whether it was there already, of a submit that was killed half-way."""


@dataclass(frozen=True)
class Submitted:
    """What a submit of a matrix has made."""

    runs: list[Placed]
    left: list[RunDir]
    """Runs that go on of an earlier submit of this name, which was killed half-way and had other recipes."""
    refusal: str = ""
    """Why the scheduler took no more, though there seemed to be room."""


def submit(plans: Sequence[Plan], root: Path) -> Submitted:
    """A run for each plan, all of one matrix.

    Each is made whole, and none is queued before all are made. A submit that is killed leaves a record beside the
    runs: the next one of the same recipe completes it; one of another takes away what has not begun. Raises UserError,
    with no run left, where the scheduler refuses the first.
    """
    make_root(root)
    with locked(root / LOCK, PATIENCE) as mine:
        if not mine:
            raise UserError(Fault(str(root), "another hpcft is submitting a matrix.", "Try again in a minute."))
        chain.clear_unfinished(root)
        name = _name(plans[0])
        record = root / f".matrix-{name}.json"
        identity, left = _begin(record, plans)
        there = {(run.submission or {})["recipe"]["name"]: run for run in siblings(root, identity)}
        placed = []
        for index, plan in enumerate(plans):
            run = there.get(plan.recipe.name)
            placed.append(Placed(run or _make(plan, root, identity, index), run is not None))
        refusal = ""
        try:
            _start([one.run for one in placed])
        except UserError as error:
            if all(one.run.waits for one in placed):
                for one in placed:
                    chain.discard(one.run)
                record.unlink()
                raise
            refusal = str(error)
        record.unlink()
    return Submitted(placed, left, refusal)


def _name(plan: Plan) -> str:
    """Of the matrix: what its recipe calls itself."""
    assert plan.file.cell is not None
    return plan.recipe.name.removesuffix(f"-{plan.file.cell.label}")


def _begin(record: Path, plans: Sequence[Plan]) -> tuple[str, list[RunDir]]:
    """The identity of this matrix, that of the killed submit which it completes, or a new one; and what is left of
    another, whose runs that have not begun are gone."""
    given = json.dumps([chain.given_by(plan) for plan in plans], sort_keys=True)
    digest = hashlib.sha256(given.encode()).hexdigest()
    before, left = read_json(record), []
    if before and before["given"] == digest:
        return str(before["id"]), []
    for run in siblings(record.parent, before["id"]) if before else ():
        if run.waits:
            chain.discard(run)
        else:
            left.append(run)
    identity = uuid.uuid4().hex
    write_json(record, {"id": identity, "given": digest})
    return identity, left


def _make(plan: Plan, root: Path, identity: str, index: int) -> RunDir:
    """The directory of one run, with no job yet."""
    assert plan.file.cell is not None
    settings = dict(plan.file.cell.settings)
    matrix = {"id": identity, "index": index, "name": _name(plan), "settings": settings}
    lock, run = chain.make_run(plan, root, {**chain.given_by(plan), "matrix": matrix})
    lock.drop()
    return run


def matrix_of(run: RunDir) -> dict[str, Any] | None:
    """{id, index, name, settings}: the matrix that a run is one of."""
    found: dict[str, Any] | None = (run.submission or {}).get("matrix")
    return found


def siblings(root: Path, identity: str) -> list[RunDir]:
    """All runs of one matrix that are there, in its order."""
    found = [(matrix["index"], run) for run in find_runs(root) if (matrix := matrix_of(run))]
    return [run for index, run in sorted(found, key=lambda one: one[0]) if (matrix_of(run) or {})["id"] == identity]


def start_next(run: RunDir, leaving: int = 0) -> list[RunDir]:
    """Those runs of this run's matrix that are queued now, having waited; called when it is over.

    `leaving`: jobs that still count in the queue, and are about to end. Raises UserError as the scheduler does.
    """
    matrix = matrix_of(run)
    if matrix is None:
        return []
    root = run.path.parent
    with locked(root / LOCK, PATIENCE) as mine:
        return _start(siblings(root, matrix["id"]), leaving) if mine else []


def _start(runs: Sequence[RunDir], leaving: int = 0) -> list[RunDir]:
    """Queue those that wait, in order, while there is room."""
    started: list[RunDir] = []
    for run in runs:
        with chain.submitting(run) as mine:
            if not mine or not run.waits:
                continue  # somebody has resumed it
            if not _has_room(run, runs, leaving):
                break
            chain.fill(run)
            started.append(run)
    return started


def _has_room(run: RunDir, runs: Sequence[RunDir], leaving: int) -> bool:
    """Whether the queue takes the first jobs of this run too; this machine takes one run of a matrix at a time."""
    cluster = chain.run_cluster(run)
    if cluster.kind == "local":
        return not any(local.keeper_lock(other).held() for other in runs if other.path != run.path)
    if not cluster.max_submit:
        return True
    # Fewer than that would do to begin with, but the run could not keep its chain going.
    needed = min(first_jobs(run.recipe, cluster), cluster.max_submit)
    return scheduler(cluster).queue(run).jobs - leaving + needed <= cluster.max_submit
