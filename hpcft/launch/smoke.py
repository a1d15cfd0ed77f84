"""`hpcft submit --smoke`: a recipe's whole way on this machine in a minute, on a tiny model and some of its rows."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcft.disk import Lock, locked, read_json, write_json
from hpcft.errors import Fault, UserError
from hpcft.launch import chain, steer
from hpcft.launch.condaenv import Env, find_env
from hpcft.launch.envfit import env_faults
from hpcft.launch.export import Export, write
from hpcft.launch.facts import read_facts
from hpcft.launch.hub import hub_variables
from hpcft.launch.inenv import call_python
from hpcft.launch.inputs import recipe_faults
from hpcft.launch.plan import find_site, make_plan, of_some, runs_root
from hpcft.launch.predecessor import with_model_of_run
from hpcft.launch.submission import check_folder
from hpcft.launch.why import explain
from hpcft.launch.words import count
from hpcft.recipe import OF_PHASES, Recipe
from hpcft.recipefile import OF_RUN, RecipeFile, check_members
from hpcft.rundir import RunDir, make_root
from hpcft.schema import expand

STEPS = 24
"""Of the run, or of each of its phases."""
SAVE_EVERY = 2
PATIENCE = 300.0
"""Seconds after which a run that has not ended is given up."""
PAUSE = 0.05
"""Seconds between two looks: the first checkpoint has to be seen before the last step is made."""
CHOOSES = ("columns", "split", "filter", "revision", "config")
"""Keys of `data` that say which rows there are, and what their columns are called."""
OLD = 600.0
"""Seconds after which the folder of a smoke test that was killed goes with the next one."""


@dataclass
class Seen:
    """What was seen to work, and what could not be looked at here."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)


def smoke(path: Path, overrides: Sequence[str], cluster: str | None, runs: Path | None) -> int:
    """0 if the recipe was seen to work, and nothing is left of it; 1 if it failed, and then its folder is.

    Raises UserError with every fault that shows before anything is started.
    """
    file, several = _checked(path, overrides)
    if file.recipe.model.path.startswith(OF_RUN):
        file = with_model_of_run(file, runs_root(runs, find_site(file, cluster).cluster))
    env = _env(file, cluster)
    root = _root(runs)
    folder = Path(tempfile.mkdtemp(prefix=".smoke-", dir=root))
    lock = Lock(folder / "lock")
    lock.take()
    begun, seen, failed = time.monotonic(), Seen(), True
    try:
        failed = not _whole_way(file, cluster, env, folder, seen)
    except UserError as error:
        for fault in error.faults:
            print(f"hpcft: {fault}", file=sys.stderr)
    except KeyboardInterrupt:
        failed = False
        print(f"\nhpcft: smoke: stopped; nothing is known of {file.recipe.name}", file=sys.stderr)
        return 130
    finally:
        lock.drop()
        if failed:
            (folder / "failed").touch()
        else:
            _remove(folder)
    if failed:
        logs = f"`hpcft logs {file.recipe.name} --runs {folder}/runs`"
        print(f"hpcft: smoke: {file.recipe.name} failed. {logs} may say more; {folder} may be removed.")
        return 1
    for what, words in seen.lines:
        print(f"  {what:11} {words}")
    print(f"not seen here: {', '.join(seen.unseen)}")
    if several > 1:
        print(f"This was the first of {several} runs; `--set matrix=NAME` tries another.")
    names = ", ".join(what for what, _ in seen.lines)
    print(f"hpcft: smoke: {file.recipe.name} works ({names}), in {time.monotonic() - begun:.0f} s on this machine.")
    return 0


def _checked(path: Path, overrides: Sequence[str]) -> tuple[RecipeFile, int]:
    """The recipe, of a matrix its first, and how many there are. Raises UserError with the faults of all."""
    members = check_members(path, overrides)
    found: dict[Fault, list[str]] = {}
    for member in members:
        label = member.file.cell.label if member.file and member.file.cell else ""
        for fault in (*member.faults, *(recipe_faults(member.file) if member.file else ())):
            found.setdefault(fault, []).append(label)
    if found or members[0].file is None:
        raise UserError([of_some(fault, labels, len(members)) for fault, labels in found.items()])
    return members[0].file, len(members)


def _env(file: RecipeFile, cluster: str | None) -> Env:
    """The env of the jobs. Raises UserError if it lacks what this recipe needs."""
    envs = None
    with contextlib.suppress(UserError):  # a site whose variables are not set here
        envs = find_site(file, cluster).cluster.folder("envs")
    env = find_env(file.recipe.env, file.where("env"), envs)
    if faults := env_faults(env, file, None):
        raise UserError(faults)
    return env


def _root(runs: Path | None) -> Path:
    """Where the folder is made: beside the runs where they are named, else where temporary files go."""
    named = str(runs or os.environ.get("HPCFT_RUNS", ""))
    root = (expand(named) if named else Path(tempfile.gettempdir())).resolve()
    check_folder(root)
    make_root(root)
    for path in root.glob(".smoke-*"):
        with contextlib.suppress(OSError, UserError):
            if time.time() - path.stat().st_mtime > OLD and not (path / "failed").exists():
                with locked(path / "lock") as mine:
                    if mine:
                        _remove(path)
    return root


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _whole_way(file: RecipeFile, cluster: str | None, env: Env, folder: Path, seen: Seen) -> bool:
    """Whether data, training, evaluation and export all worked; what did not has been said."""
    print(f"smoke: {file.recipe.name} in {folder}", flush=True)
    write_json(folder / "recipe.json", file.recipe.model_dump(mode="json"))
    if _prepare(file, cluster, env, folder):
        return False
    parts = read_json(folder / "parts.json") or {}
    splits = [split for split in ("train", "validation", "test") if split in parts["rows"]]
    rows = ", ".join(f"{parts['rows'][split]} of {split}" for split in splits)
    model = f"{parts['architecture']} with {parts['parameters'] / 1e6:.1f} million parameters at random"
    seen.lines += [("data", f"rows: {rows}"), ("model", f"{model}, and the tokenizer")]
    print(f"  rows and a tiny {parts['architecture']} are made; it trains", flush=True)
    values = reduced(file.recipe, folder, splits, env)
    if parts["labels"]:
        values["data"]["labels"] = parts["labels"]  # some may be in the test rows alone, now that there are so few
    (folder / "here.yaml").write_text(json.dumps({"kind": "local", "runs": str(folder / "runs"), "stop_margin": 1}))
    (folder / "smoke.yaml").write_text(json.dumps(values, indent=1), encoding="utf-8")
    plan = make_plan(folder / "smoke.yaml", (), None, folder / "runs")
    run = chain.submit(plan, plan.root)
    try:
        _follow(run)
    except BaseException:
        steer.cancel(run)
        raise
    if not run.finished:
        for line in explain(run):
            print(f"  {line}", file=sys.stderr)
        return False
    seen.lines += [("training", _training(run)), ("evaluation", _evaluation(run))]
    print("  it is exported", flush=True)
    if write(Export(run, folder / "export")):
        return False
    names = sorted(path.name for path in (folder / "export").iterdir())
    seen.lines.append(("export", f"{count(len(names), 'file')}, {', '.join(names[:3])}, ..."))
    seen.unseen = list(unseen(file.recipe))
    return True


def _prepare(file: RecipeFile, cluster: str | None, env: Env, folder: Path) -> int:
    """The exit code of the process that takes rows and makes the model."""
    caches: dict[str, str] = {}
    with contextlib.suppress(UserError):
        caches = hub_variables(find_site(file, cluster).cluster)
    return call_python(env.python, "hpcft.train.smoke", [str(folder)], caches)


def reduced(recipe: Recipe, folder: Path, splits: Sequence[str], env: Env) -> dict[str, Any]:
    """The recipe with the tiny model and the rows that lie in this folder, short enough for a minute of this machine.

    All else stays: the task, the template, lengths, the grouping, adapters, what is frozen, and how it is evaluated.
    """
    values = recipe.model_dump(mode="json", exclude_none=True)
    processes = min(2, recipe.processes)
    values |= {"cluster": str(folder / "here.yaml"), "env": str(env.prefix)}
    values["model"]["path"] = str(folder / "model")
    values["model"].pop("revision", None)
    if isinstance(recipe.model.freeze, int):
        values["model"]["freeze"] = 1
    values["data"] = _data(values["data"], recipe.task) | {split: str(folder / f"{split}.jsonl") for split in splits}
    values["data"]["workers"] = min(1, recipe.data.workers)
    values["train"] = _train(values["train"], processes, values["data"]["max_length"])
    values["train"] |= {"save_every": SAVE_EVERY, "log_every": 1, "precision": "fp32", "optimizer": "adamw"}
    values["train"] |= {"offload": False, "clip_norm": recipe.train.clip_norm}
    values["train"].pop("keep_bytes", None)
    if processes == 1:
        values["train"]["sharding"] = "none"
    for phase in values["phases"]:
        name, own = phase["name"], [key for key in ("train", "validation") if key in phase["data"]]
        phase["data"] = _data(phase["data"], recipe.task) | {key: str(folder / f"{name}-{key}.jsonl") for key in own}
        longest = phase["data"].get("max_length", values["data"]["max_length"])
        phase["train"] = _train({**recipe.train.model_dump(exclude_none=True), **phase["train"]}, processes, longest)
        phase["train"] = {key: phase["train"][key] for key in phase["train"] if key in OF_PHASES}
    if recipe.phases:
        values["train"].pop("steps")
    if recipe.evaluate.every:
        values["evaluate"]["every"] = STEPS // 2
    values["evaluate"]["batch_size"] = min(8, recipe.evaluate.batch_size)
    resources = {"gpus": 0, "processes": processes, "cpus_per_process": 1, "walltime": "0:10:00", "jobs": 10}
    return {**values, "resources": resources, "notify": {}, "track": {}}


def _data(given: dict[str, Any], task: str) -> dict[str, Any]:
    """The section less what has chosen the rows and named their columns: that has been done."""
    kept = {key: value for key, value in given.items() if key not in CHOOSES}
    if task == "corpus" and "max_length" in kept:
        kept["max_length"] = min(128, kept["max_length"])  # of a block, which is filled whatever its length
    return kept


def _train(given: dict[str, Any], processes: int, longest: int) -> dict[str, Any]:
    """The section with a few steps of a few rows, two micro-batches each so that gradients are added up."""
    kept = {key: value for key, value in given.items() if key not in ("epochs", "batch_size", "batch_tokens")}
    size = {"batch_tokens": 2 * processes * longest} if "batch_tokens" in given else {"batch_size": 4 * processes}
    return {**kept, **size, "steps": STEPS, "micro_batch_size": 2, "warmup_steps": min(2, given["warmup_steps"])}


def unseen(recipe: Recipe) -> Iterator[str]:
    """What of a recipe this machine has not shown, in words."""
    yield "the model's own weights"
    yield "Slurm"
    if recipe.train.precision != "fp32":
        yield f"{recipe.train.precision}, for fp32 was used"
    if recipe.train.optimizer != "adamw":
        yield f"{recipe.train.optimizer}, for adamw was used"
    if recipe.train.offload:
        yield "train.offload"
    if recipe.train.sharding != "none" and recipe.processes == 1:
        yield "train.sharding"
    if recipe.processes > 2:
        yield f"{recipe.processes} processes, for 2 were used"
    if recipe.resources.gpus:
        yield "GPUs and their memory"


def _follow(run: RunDir) -> None:
    """Until the run is over; its first job is ended after a checkpoint, as a site that takes back a node does."""
    deadline, cut = time.monotonic() + PATIENCE, False
    while not (run.finished or run.halted):
        if time.monotonic() > deadline:
            steer.cancel(run)
            print(f"  the run did not end within {PATIENCE:.0f} s", file=sys.stderr)
            return
        if not cut and run.saved_steps() and (started := run.job(1).started):
            with contextlib.suppress(ProcessLookupError):
                os.kill(started["pid"], signal.SIGTERM)
            cut = True
        time.sleep(PAUSE)


def _training(run: RunDir) -> str:
    """`24 steps in 2 jobs: ended at step 4 and resumed, bit-exact; loss 10.83 to 9.71`."""
    facts = read_facts(run)
    jobs = [job for job in facts.jobs if job.resumed]
    steps = f"{run.total_steps()} steps in {count(len(jobs), 'job')}"
    cuts = [f"resumed at step {job.resumed['step']}, {job.resumed['exactness']}" for job in jobs[1:] if job.resumed]
    loss = facts.latest("loss")
    words = f"{steps}{': ' if cuts else ', too quick to be cut'}{'; '.join(cuts)}"
    return words if loss is None else f"{words}; loss {loss:.4g} at the end"


def _evaluation(run: RunDir) -> str:
    """What was measured beside the training loss."""
    words = []
    if (loss := read_facts(run).latest("validation_loss")) is not None:
        words.append(f"validation loss {loss:.4g}")
    for path in sorted(run.evaluation.glob("*.json"), key=lambda path: (path.stem != "before", path.stem)):
        found = read_json(path) or {}
        if "accuracy" in found:
            words.append(f"accuracy {path.stem} {found['accuracy']:.1%} of {found['rows']} rows")
        if "perplexity" in found:
            words.append(f"perplexity {path.stem} {found['perplexity']:.4g} on {found['rows']} rows")
        if "exchanged" in found:
            words.append(f"{found['exchanged']:.0%} of its verdicts exchanged with the responses")
    return ", ".join(words) or "none: the recipe names neither validation nor test rows"
