"""The trackers that a curve can be handed on to, each as a session: it opens a run, says what that has, and takes rows.

accelerate's trackers open and close them. What those lack is here: how a run is opened again, what of it is on disk
after a kill, and at what time a step was made.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from accelerate.tracking import AimTracker, MLflowTracker, TrackioTracker, WandBTracker

NOTHING = -1
"""The last step of a run that has none yet."""


@dataclass(frozen=True)
class Row:
    """What was logged of one step."""

    step: int
    wall_time: float
    """Seconds since 1970, of its last point."""
    values: Mapping[str, float]
    """By tag."""


@dataclass(frozen=True)
class Target:
    """The tracker's run that a chain is handed on to."""

    name: str
    """The run's."""
    key: str
    """Drawn once for the run, and never another's: 8 hexadecimal digits."""
    project: str
    folder: Path
    """In the run directory, for trackers that keep their own here."""
    config: Mapping[str, Any]
    """The recipe's settings, flat."""


class Session(Protocol):
    """One tracker's run, open in this process; each method raises whatever the tracker does."""

    id: str
    """What the tracker calls the run."""

    def last_step(self) -> int:
        """The last step that is on disk, or with the server, whole; NOTHING where none is."""

    def send(self, rows: Sequence[Row]) -> None:
        """Hand these on, whose steps increase."""

    def finish(self) -> None:
        """Wait until all is on disk, or with the server; raises RuntimeError where it can be seen not to be."""


def _check(kept: int, given: int) -> None:
    if kept < given:
        raise RuntimeError(f"it has kept nothing behind step {kept}, of {given}")


class WandB:
    """W&B, online, or offline where WANDB_MODE says so: then each session is a folder below `wandb/`."""

    PATIENCE = 40.0
    """Seconds until a server that does not answer is given up: the job waits a minute at its end."""

    def __init__(self, target: Target, *, fresh: bool) -> None:
        import wandb

        quiet = wandb.Settings(
            init_timeout=self.PATIENCE,
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_disable_meta=True,
        )
        self._folder = target.folder / "wandb"
        target.folder.mkdir(exist_ok=True)
        self.id, self._given = target.key, NOTHING
        self._tracker = WandBTracker(
            target.project, id=self.id, name=target.name, dir=str(target.folder), resume="allow", settings=quiet
        )
        self._tracker.start()
        if fresh:
            self._tracker.store_init_configuration(dict(target.config))

    def _in_files(self) -> int:
        """The last step in the files of sessions without a network, on whichever job's node they were."""
        files = self._folder.glob(f"offline-run-*-{self.id}/run-{self.id}.wandb")
        return max((step for step in map(_last_of_file, files) if step is not None), default=NOTHING)

    def last_step(self) -> int:
        """Of the server, where this goes on with a run that it has; else of the files."""
        run = self._tracker.tracker
        return max(int(run.starting_step) - 1 if run.resumed else NOTHING, self._in_files())

    def send(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._tracker.log({**row.values, "_timestamp": row.wall_time}, step=row.step)
            self._given = row.step

    def finish(self) -> None:
        import wandb

        offline = self._tracker.tracker.offline
        self._tracker.finish()
        wandb.teardown()  # finish comes back while its other process still writes
        if offline:
            _check(self._in_files(), self._given)


BLOCK = 32768
"""Bytes. W&B's files are made of such blocks, as the logs of LevelDB are."""
HEADER = struct.Struct("<IHB")
"""Of a piece in a block: checksum, length, and whether it is a whole record (1), its first (2), middle or last (4)."""
MAGIC = 7


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file up to where it ends, whether or not the session that wrote it was killed."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, record = path.read_bytes(), MAGIC, b""
    while place + HEADER.size <= len(data):
        if (left := BLOCK - place % BLOCK) < HEADER.size:
            place += left
            continue
        _, length, kind = HEADER.unpack_from(data, place)
        piece = data[place + HEADER.size : place + HEADER.size + length]
        if kind == 0 or len(piece) < length:
            return
        place += HEADER.size + length
        record = piece if kind in (1, 2) else record + piece
        if kind in (1, 4):
            yield Record.FromString(record)


def _last_of_file(path: Path) -> int | None:
    steps = [record.history.step.num for record in wandb_records(path) if record.WhichOneof("record_type") == "history"]
    return max(steps, default=None)


class MLflow:
    """MLflow, on the server that MLFLOW_TRACKING_URI names, else in a database in the run directory."""

    TAG = "hpcft.run"
    MOST = 900
    """Metrics of one request; MLflow takes 1000."""

    def __init__(self, target: Target, *, fresh: bool) -> None:
        import mlflow

        target.folder.mkdir(exist_ok=True)
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{target.folder / 'mlflow.db'}")
        self._client = mlflow.MlflowClient()
        own = os.environ["MLFLOW_TRACKING_URI"].startswith("sqlite:")
        self._tracker = MLflowTracker(
            target.project, str(target.folder / "mlflow-artifacts") if own else None,
            run_id=self._find(target), run_name=target.name, tags={self.TAG: target.key},
        )  # fmt: skip
        self._tracker.start()
        self.id = str(self._tracker.tracker.info.run_id)
        if fresh:
            self._tracker.store_init_configuration(dict(target.config))

    def _find(self, target: Target) -> str | None:
        """The run that an earlier job has opened, which may have been killed before it wrote down what it is called."""
        experiment = self._client.get_experiment_by_name(target.project)
        if experiment is None:
            return None
        found = self._client.search_runs([experiment.experiment_id], f"tags.`{self.TAG}` = '{target.key}'")
        return str(found[0].info.run_id) if found else None

    def last_step(self) -> int:
        # Its public part gives the newest values without their steps, and whole histories, which may be long.
        newest = self._client.get_run(self.id).data._metric_objs
        return max((int(metric.step) for metric in newest), default=NOTHING)

    def send(self, rows: Sequence[Row]) -> None:
        """In requests of whole rows, each of which MLflow writes whole or not at all, with the times of the steps."""
        from mlflow.entities import Metric

        batch: list[Any] = []
        for row in rows:
            time = int(row.wall_time * 1000)
            of_row = [Metric(tag, value, time, row.step) for tag, value in row.values.items()]
            if len(batch) + len(of_row) > self.MOST:
                self._client.log_batch(self.id, metrics=batch)
                batch = []
            batch += of_row
        if batch:
            self._client.log_batch(self.id, metrics=batch)

    def finish(self) -> None:
        self._tracker.finish()


class Trackio:
    """Trackio, in the Space or on the server that its variables name, else in a database in the run directory."""

    def __init__(self, target: Target, *, fresh: bool) -> None:
        target.folder.mkdir(exist_ok=True)
        os.environ.setdefault("TRACKIO_DIR", str(target.folder / "trackio"))  # read when trackio is imported
        self.id = f"{target.name}-{target.key}"
        self._project, self._given = target.project, NOTHING
        self._tracker = TrackioTracker(
            target.project, name=self.id, resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False,
            config=dict(target.config) if fresh else None,
        )  # fmt: skip
        self._tracker.start()
        self._begun = int(self._tracker.tracker._next_step) - 1  # as it has looked up on opening the run again

    def last_step(self) -> int:
        return self._begun

    def send(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._tracker.log(dict(row.values), step=row.step)
            self._given = row.step

    def finish(self) -> None:
        """It raises nothing itself, whatever befalls it: what lies in its database is read again."""
        from trackio.sqlite_storage import SQLiteStorage

        here = self._tracker.tracker._is_local
        self._tracker.finish()
        if here:
            kept = SQLiteStorage.get_max_step_for_run(self._project, self.id)
            _check(NOTHING if kept is None else kept, self._given)


class Aim:
    """Aim, in a repository in the run directory."""

    def __init__(self, target: Target, *, fresh: bool) -> None:
        from aim import Repo

        folder = target.folder / "aim"
        folder.mkdir(parents=True, exist_ok=True)
        known = Repo.from_path(str(folder), init=True).list_all_runs()
        self._tracker = AimTracker(
            target.name, str(folder), experiment=target.project, run_hash=known[0] if known else None,
            system_tracking_interval=None, log_system_params=False, capture_terminal_logs=False,
        )  # fmt: skip
        self._tracker.start()
        self.id = str(self._tracker.tracker.hash)
        if fresh:
            self._tracker.store_init_configuration(dict(target.config))

    def last_step(self) -> int:
        """Always NOTHING: it keeps one value of a tag and a step, so what is given twice is there once."""
        return NOTHING

    def send(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._tracker.log(dict(row.values), step=row.step)

    def finish(self) -> None:
        self._tracker.finish()


SESSIONS: Mapping[str, Callable[..., Session]] = {"aim": Aim, "mlflow": MLflow, "trackio": Trackio, "wandb": WandB}
"""By the name that a recipe calls them."""
