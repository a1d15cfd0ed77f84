"""What other trackers need is said before anything is queued."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcft.launch.trackfit import variables
from tests.desk import Desk
from tests.launch.test_envfit import env, fill
from tests.standins import put, put_torch


@pytest.fixture(autouse=True)
def nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home without a key of W&B's, and a cluster whose nodes have internet."""
    monkeypatch.setenv("HOME", str(desk.folder))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def whole_env(desk: Desk) -> Path:
    prefix = env(desk, more=False)
    fill(prefix)
    put_torch(prefix, "2.10.0+cu128", "12.8")
    return prefix


def track(desk: Desk, to: str) -> None:
    desk.change("resources:\n", f"track:\n  to: {to}\nresources:\n")


def test_a_tracker_that_is_not_known_is_named_with_those_that_are(desk: Desk) -> None:
    track(desk, "[wandb, tensorbord]")
    (said,) = desk.faults()
    assert "tensorbord" in said and "aim, mlflow, trackio, wandb" in said


def test_a_package_that_the_env_lacks_is_said_with_the_line_that_installs_it(desk: Desk) -> None:
    prefix = whole_env(desk)
    track(desk, "[mlflow, trackio]")
    lacks = "has no mlflow, sqlalchemy, alembic, trackio, which track.to asks for."
    mend = "Run `env/bin/python -m pip install mlflow-skinny sqlalchemy alembic trackio`."
    assert desk.faults() == [f"demo.yaml:13: the env env {lacks} {mend}"]
    for name in ("mlflow", "sqlalchemy", "alembic", "trackio"):
        put(prefix, name, "1.0")
    desk.accepts()


def test_a_server_of_mlflow_needs_no_database_here(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    put(whole_env(desk), "mlflow", "3.17.2")
    track(desk, "[mlflow]")
    assert "no sqlalchemy, alembic, which" in desk.faults()[0]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.site.org")
    desk.accepts()


def test_wandb_wants_a_key_where_it_leads_to_its_server(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    put(whole_env(desk), "wandb", "0.31.0")
    track(desk, "[wandb]")
    refusal = [
        "demo.yaml:13: track.to has wandb, and W&B has no key of yours on this machine. Run `wandb login`, or submit "
        "with WANDB_MODE=offline."
    ]
    assert desk.faults() == refusal
    desk.write(".netrc", "machine api.wandb.ai login user password 0123\n").chmod(0o600)
    desk.accepts()
    desk.write(".netrc", "machine api.forge.coreweave.com login user password 0123\n")
    desk.accepts()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.site.org")
    assert desk.faults() == refusal
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    desk.accepts()
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("WANDB_MODE", "offline")
    desk.accepts()


def test_nodes_without_internet_need_no_key_and_keep_wandb_offline(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    put(whole_env(desk), "wandb", "0.31.0")
    track(desk, "[wandb]")
    desk.change("max_submit: 20\n", "max_submit: 20\ninternet: false\n", "site.yaml")
    desk.accepts()
    assert variables(internet=False)["WANDB_MODE"] == "offline"
    assert "WANDB_MODE" not in variables(internet=True)
    monkeypatch.setenv("WANDB_MODE", "shared")
    assert "WANDB_MODE" not in variables(internet=False)


def test_status_as_json_has_an_entry_for_each_tracker_that_has_begun(desk: Desk) -> None:
    from hpcft.disk import write_json
    from hpcft.launch.show import details
    from hpcft.launch.status import read_status
    from tests.test_cli import make_run

    run = make_run(desk, "demo")
    recipe = json.loads((run.path / "recipe.json").read_text())
    write_json(run.path / "recipe.json", {**recipe, "track": {"to": ["wandb", "aim"]}})
    run.trackers.mkdir()
    write_json(run.trackers / "wandb.json", {"key": "3f2a9c1e", "id": "3f2a9c1e", "sent": 100, "given": 120})
    (status,) = read_status([run])
    assert status.as_json()["trackers"] == [{"name": "wandb", "id": "3f2a9c1e", "step": 120, "fault": None}]
    assert "  tracker    wandb has the curve to step 120, as 3f2a9c1e" in details(status)
