"""A run with all its records, made by hand: three jobs on two cards of which each lost something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcft.curves.writer import CurveWriter
from hpcft.disk import write_json
from hpcft.rundir import RunDir

SECRETS = ("/scratch/someone", "someone", "hooks.example.org", "login07", "envs/ft")
"""What others shall not read of it."""
RECIPE = """\
name: demo
task: corpus
model: {path: /scratch/someone/models/gpt2-small}
data: {train: /scratch/someone/rows/texts.csv, max_length: 64}
train: {steps: 100, batch_size: 8, learning_rate: 5e-5}
notify: {webhook: https://hooks.example.org/T0/secret}
"""


def make_run(root: Path, name: str = "demo") -> RunDir:
    """Killed after 50 steps with a checkpoint at 40; a job that died at its start; and the one that finished.

    Every job waited for 100 s. Steps take 10 s, of which 1 s waits for rows; evaluations 5 s.
    """
    run = RunDir(root / name)
    values = {"name": name, "task": "corpus", "model": {"path": "/scratch/someone/models/gpt2-small"}}
    values["data"] = {"train": "/scratch/someone/rows/texts.csv", "max_length": 64}  # type: ignore[assignment]
    more: dict[str, Any] = {"train": {"steps": 100, "batch_size": 8}, "resources": {"gpus": 2, "walltime": "0:20:00"}}
    _fact(run.path / "recipe.json", {**values, **more, "notify": {"webhook": "https://hooks.example.org/T0/secret"}})
    (run.path / "recipe.yaml").write_text(RECIPE)
    cluster = {"name": "orfeo", "kind": "slurm", "runs": "x", "partition": "GPU"}
    _fact(run.path / "submission.json", {"cluster": cluster, "env": "/scratch/someone/envs/ft", "time": 1e9 - 100})
    _fact(run.path / "queued.json", {"time": 0})
    _fact(run.path / "finished.json", {"step": 100, "time": 1e9 + 2400})
    overrides = ["train.learning_rate=1e-5", "data.train=/scratch/someone/rows/texts.csv", "notify.mail=someone@here"]
    digest = {"path": "/scratch/someone/rows/texts.csv", "bytes": 12_345_678, "mtime": 0, "sha256": "ab" * 32}
    data = {"train": {**digest, "hashed": "first and last MiB"}}
    record = {"user": "someone", "host": "login07", "overrides": overrides, "hpcft": "0.1.0", "data": data}
    _fact(run.path / "provenance.json", {**record, "recipe": "/scratch/someone/demo.yaml", "git_sha": "c0ffee" * 7})
    packages = ["torch==2.13.0", "transformers==5.23.0", "numpy==2.4.6"]
    _fact(run.path / "env.json", {"prefix": "/scratch/someone/envs/ft", "python": "3.11.7", "packages": packages})
    start = {"imports": 30.0, "model": 20.0, "first step": 10.0}
    _job(run, 1, 1e9, 600.0, "killed", first=0, last=50, start=start, seconds={"train": 500.0, "evaluate": 25.0},
         reason="all its processes were killed: its node failed")  # fmt: skip
    _job(run, 2, 1e9 + 700, 120.0, "crashed", reason="/scratch/someone/models/gpt2-small: the model does not load",
         start={"imports": 30.0})  # fmt: skip
    _job(run, 3, 1e9 + 920, 800.0, "finished", first=40, last=100, start=start,
         seconds={"train": 600.0, "evaluate": 30.0, "save": 15.0, "finish": 5.0})  # fmt: skip
    return run


def _job(
    run: RunDir, number: int, begins: float, lasted: float, ending: str, first: int | None = None, last: int = 0,
    **facts: Any,
) -> None:  # fmt: skip
    job = run.job(number)
    after = {"after": [str(4710 + number - 1)] if number > 1 else []}
    submitted = {"slurm_id": str(4710 + number), "walltime": 1200, "gpus": 2, "time": begins - 100, **after}
    _fact(job.path / "submitted.json", submitted)
    _fact(job.path / "started.json", {"time": begins, "node": f"gpu00{number}", "host": "x"})
    ended = {"ending": ending, "time": begins + lasted, "wall_seconds": lasted, "progress": True, **facts}
    if first is not None:
        _fact(job.path / "resumed.json", {"step": first, "total_steps": 100, "device": "Tesla V100-SXM2-32GB"})
        ended |= {"last_step": last, "loss": 2.0}
        writer = CurveWriter(job.curve)
        for step in range(first + 1, last + 1):
            at = begins + 50 + 10 * (step - first)
            writer.scalar("train/loss", 5 - step / 50, step, wall_time=at)
            writer.scalar("seconds/data", 1.0, step, wall_time=at)
            writer.scalar("seconds/compute", 9.0, step, wall_time=at)
            if step % 10 == 0:
                writer.scalar("validation/loss", 5 - step / 60, step, wall_time=at)
                writer.scalar("seconds/evaluation", 5.0, step, wall_time=at)
        writer.close()
    _fact(job.path / "ended.json", ended)


def _fact(path: Path, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, value)
