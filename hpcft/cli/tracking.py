"""The verb that hands a curve on to other trackers."""

from __future__ import annotations

from hpcft.cli.app import RunName, Runs, app, choose_one
from hpcft.errors import Fault, UserError


@app.command()
def track(name: RunName, runs: Runs = None) -> None:
    """Hand a run's curve on to its trackers, where a job could not."""
    from hpcft.disk import read_json
    from hpcft.launch.track import track as hand_on

    run = choose_one(runs, name)
    outcome = hand_on(run)
    for tracker, fault in outcome.items():
        facts = read_json(run.trackers / f"{tracker}.json") or {}
        if fault is None:
            print(f"{tracker}: the curve to step {int(facts.get('sent', -1))}, as {facts.get('id')}")
    if wrong := [Fault(tracker, fault) for tracker, fault in outcome.items() if fault]:
        raise UserError(wrong)
