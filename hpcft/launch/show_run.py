"""What `hpcft show` prints: where a run came from, what has been changed in it, and what it has come to on disk."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from hpcft.disk import read_json
from hpcft.launch import changes
from hpcft.launch.chain import run_cluster
from hpcft.launch.drift import tokenised
from hpcft.launch.fetchrows import hub_rows
from hpcft.launch.provenance import data_files, fingerprint, model_files, provenance, same
from hpcft.launch.sizes import sizes
from hpcft.launch.words import amount, clock, count, duration
from hpcft.rundir import JobDir, RunDir
from hpcft.sections import Filter

LISTED = ("torch", "transformers", "accelerate", "numpy")
"""Packages that are named in one line; env.json has them all."""
UNKNOWN = "not recorded"


def papers(run: RunDir) -> dict[str, Any]:
    """Everything that `show` knows, as plain values."""
    return {
        "name": run.name,
        "dir": str(run.path),
        "recipe": json.loads((run.path / "recipe.json").read_bytes()),
        "changes": changes.changes(run),
        "provenance": provenance(run),
        "submission": {key: value for key, value in (run.submission or {}).items() if key != "recipe"},
        "rows": run.rows,
        "env": read_json(run.path / "env.json"),
        "jobs": [_job_facts(job) for job in run.jobs() if job.submitted],
        "bytes": sizes(run),
        "finished": run.finished,
        "halted": run.halted,
    }


def _job_facts(job: JobDir) -> dict[str, Any]:
    submitted, started, ended = job.submitted or {}, job.started or {}, job.ended or {}
    return {
        "number": job.number,
        "attempt": job.attempt,
        "slurm_id": job.slurm_id,
        "submitted": submitted.get("time"),
        "started": started.get("time"),
        "ended": ended.get("time"),
        "ending": ended.get("ending"),
        "node": started.get("node") or started.get("host"),
        "start": (ended or job.heartbeat or {}).get("start", {}),
        "exactness": (job.resumed or {}).get("exactness"),
        "changes": (job.resumed or {}).get("changes", []),
    }


def print_papers(run: RunDir, *, diff: bool = False) -> None:
    """The run's papers, for a person; with `diff`, the uncommitted changes around its recipe, and nothing else."""
    facts = papers(run)
    record = facts["provenance"]
    if diff:
        sys.stdout.write(record.get("git_diff") or "")
        return
    for key, value in _origin(run, facts):
        print(f"{key:12} {value}")
    print("\nchanges" if facts["changes"] else "\nno change since the submission")
    for change in facts["changes"]:
        print(f"  {clock(change['time'])}  {change['user']}, hpcft {change['verb']}, {_when(change)}")
        for key, value in change["after"].items():
            print(f"    {changes.line(key, change['before'][key], value)}")
    print("\njobs")
    for job in facts["jobs"]:
        print(f"  {_job_line(job)}")
    print("\non disk")
    for name, size in sorted(facts["bytes"].items(), key=lambda item: -item[1])[:8]:
        print(f"  {amount(size):>8}  {name}")
    print("\nrecipe, as every job reads it")
    recipe = facts["recipe"]
    if address := recipe.get("notify", {}).get("webhook"):
        recipe = {**recipe, "notify": {**recipe["notify"], "webhook": changes.masked("notify", address)}}
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    print("".join(f"  {line}\n" for line in text.splitlines()), end="")
    sys.stdout.flush()


def _when(change: dict[str, Any]) -> str:
    return f"after job {change['after_job']}, at step {change['step']}" if change["after_job"] else "before any job"


def _origin(run: RunDir, facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    record, submission = facts["provenance"], facts["submission"]
    cluster = run_cluster(run)
    yield "run", f"{run.path}, {amount(sum(facts['bytes'].values()))}"
    by = f" by {record['user']} on {record['host']}" if "user" in record else ""
    yield "submitted", f"{clock(submission.get('time'))}{by}"
    yield "recipe", f"{record.get('recipe') or UNKNOWN} (as it was: {run.path / 'recipe.yaml'})"
    yield (
        "overrides",
        " ".join(f"--set {changes.masked(text, text)}" for text in record.get("overrides") or ()) or "none",
    )
    if matrix := submission.get("matrix"):
        settings = [changes.masked(key, f"{key}={json.dumps(value)}") for key, value in matrix["settings"].items()]
        yield "matrix", f"run {matrix['index'] + 1} of {matrix['name']}: {', '.join(settings) or 'as it stands'}"
    yield "git", _git(record, run)
    yield "hpcft", f"{record.get('hpcft') or UNKNOWN} (the run's own copy: {run.code})"
    yield "env", _env(facts["env"], str(submission.get("env")))
    partition = f", partition {cluster.partition}" if cluster.partition else ""
    yield "cluster", f"{cluster.name} ({cluster.kind}{partition})"
    for key, path in data_files(run.recipe).items():
        yield f"data.{key}", _file((record.get("data") or {}).get(key), Path(path), tokenised(run, key))
    for key, name in hub_rows(run.recipe).items():
        yield key, f"{name}, revision {run.recipe.data.revision or 'main'} of the hub"
    for split, report in run.rows.items():
        yield f"{split} rows", _rows(report)
    yield "model", _model(record.get("model"), run)


def _git(record: dict[str, Any], run: RunDir) -> str:
    if not record.get("git_sha"):
        return "the recipe lay in no git checkout" if "git_sha" in record else UNKNOWN
    words = [record["git_sha"]]
    if diff := record.get("git_diff"):
        files = count(sum(line.startswith("diff --git ") for line in diff.splitlines()), "file")
        words.append(f"with uncommitted changes to {files} (`hpcft show {run.name} --diff`)")
    if untracked := record.get("git_untracked"):
        names = ", ".join([*untracked[:3], *(["…"] if untracked[3:] else [])])
        words.append(f"{count(len(untracked), 'untracked file')}: {names}")
    return "; ".join(words)


def _env(env: dict[str, Any] | None, prefix: str) -> str:
    if env is None:
        return f"{prefix}; its packages are recorded by the first job"
    packages = dict(text.partition("==")[::2] for text in env["packages"])
    named = ", ".join(f"{name} {packages[name]}" for name in LISTED if name in packages)
    return f"{env['prefix']}: Python {env['python'].split()[0]}, {named or 'none of torch and its kind'}"


def _file(before: dict[str, Any] | None, path: Path, kept: bool) -> str:
    if before is None:
        return f"{path}, {UNKNOWN}"
    how = "" if before["hashed"] == "whole" else f" of its {before['hashed']}"
    words = f"{path}, {amount(before['bytes'])}, {clock(before['mtime'])}, sha256 {before['sha256'][:16]}{how}"
    now = fingerprint(path)
    state = "" if same(before, now) else "; now gone" if now is None else "; changed since the submission"
    return f"{words}{state}{'; its rows are kept in the run' if kept and state else ''}"


def _rows(report: dict[str, Any]) -> str:
    """Which rows of its source a split has, and what each filter has removed."""
    words = [f"{report['rows']} of {count(report['of'], 'row')} of {Path(report['source']).name}"]
    removed = report["removed"]
    words += [f"{removed[name]} removed by {name}" for name in Filter.model_fields if name in removed]
    return f"{', '.join(words)}; chosen as {report['fingerprint'][:16]}"


def _model(before: dict[str, Any] | None, run: RunDir) -> str:
    path = run.recipe.model.path
    if before is None:
        commit = (read_json(run.path / "model.json") or {}).get("commit")
        asked = f"{path}, revision {run.recipe.model.revision or 'main'} of the hub"
        return f"{asked}, at commit {commit}" if commit else f"{asked}; the first job finds its commit"
    now = model_files(path) or {}
    size = sum(file["bytes"] for file in before.values() if file)
    changed = sorted(name for name in {**before, **now} if not same(before.get(name), now.get(name)))
    words = f"{path}, {count(len(before), 'file')}, {amount(size)}"
    return f"{words}; changed since the submission: {', '.join(changed)}" if changed else words


def _job_line(job: dict[str, Any]) -> str:
    name = f"{job['number']}" if job["attempt"] == 1 else f"{job['number']}.{job['attempt']}"
    words = [f"{name} ({job['slurm_id']})"]
    if job["started"]:
        words.append(f"{clock(job['started'])} on {job['node']}")
        lasted = duration(job["ended"] - job["started"]) if job["ended"] else ""
        words.append(f"{job['ending']} after {lasted}" if lasted else "no ending")
        if job["start"]:
            words.append(f"{sum(job['start'].values()):.1f} s to its first step")
    else:
        words.append(job["ending"] or f"submitted {clock(job['submitted'])}")
    if job["exactness"]:
        words.append(" ".join([job["exactness"], *([f"({'; '.join(job['changes'])})"] if job["changes"] else [])]))
    return ", ".join(words)
