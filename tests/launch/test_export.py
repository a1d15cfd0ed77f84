"""What keeps a model from being taken out of a run, said before anything is loaded."""

from __future__ import annotations

from tests.desk import Desk
from tests.test_cli import make_run


def test_all_that_is_in_the_way_is_said_at_once(desk: Desk) -> None:
    run = make_run(desk, "demo")
    (desk.folder / "out").mkdir()
    options = ("--dtype", "fp8", "--keep-adapter")
    assert desk.faults("out", *options, "--runs", "runs", verb="export", recipe="demo") == [
        '--dtype: "fp8" is not known. Use fp32, fp16, bf16.',
        "out: exists. Name a new folder, or remove it.",
        "demo: is not finished. It has no checkpoint yet either.",
        "--keep-adapter: demo has no adapter. Leave it out.",
        "demo: its env has no python any more: /e/bin/python. Make it again there.",
    ]
    for step in (8, 12):
        desk.write(f"runs/demo/checkpoints/step-{step:08d}/manifest.json", "{}")
    assert run.saved_steps() == [8, 12]
    first, second, third, *_ = desk.faults(
        "no/out", "--checkpoint", "9", "--runs", "runs", verb="export", recipe="demo"
    )
    assert first == "no/out: nothing can be made in no. Name another folder."
    assert second == "--checkpoint: demo has no checkpoint of step 9. It has 8, 12."
    assert third.startswith("demo: its env has no python any more")
    unfinished = desk.faults("new", "--runs", "runs", verb="export", recipe="demo")[0]
    assert unfinished == "demo: is not finished. Add --checkpoint with one of the steps 8, 12."
    both = desk.faults("new", "--best", "--checkpoint", "8", "--runs", "runs", verb="export", recipe="demo")[0]
    assert both == "--best: --checkpoint is given too. Leave out one of the two."
    none = desk.faults("new", "--best", "--runs", "runs", verb="export", recipe="demo")[0]
    assert none == "--best: demo has no best/. train.keep_best makes one at each better evaluation."
