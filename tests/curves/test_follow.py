"""Running TensorBoards, over a view that is rewound, healed, torn and taken over by another stitcher."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcft.curves.events import file_name
from hpcft.curves.view import View
from tests.curves.cases import LOSS, Case, Kept, chain, points, put
from tests.curves.conftest import Start
from tests.curves.test_cases import by_accumulator, by_server, expected_of, wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]


def test_running_servers_show_what_a_cold_rebuild_would_whatever_happens(tmp_path: Path, start: Start) -> None:
    view_root = tmp_path / "views"
    jobs = chain(tmp_path / "raw", 0, 40, 20)
    path = view_root / "run"
    put(jobs[0], *points(1, range(1, 51)))
    view = View(path)
    view.poll(jobs)
    servers = [start(view_root, load_fast) for load_fast in ("true", "false")]

    def all_show(kept: Kept) -> None:
        expected = expected_of(Case(jobs, {LOSS: kept}))
        assert by_accumulator(path) == expected
        for server in servers:
            wait_until(lambda server=server: by_server(server).get("run") == expected)  # type: ignore[misc]

    all_show([(1, range(1, 51))])

    # Zeros stand where another node's bytes will be: what is behind them is shown, and they when they are there.
    raw = put(jobs[1], *points(2, range(41, 71)))
    true = raw.read_bytes()
    raw.write_bytes(true[:500] + bytes(300) + true[800:])
    view.poll(jobs)
    lost = [step for step in range(41, 71) if step not in by_steps(path)]
    assert 4 <= len(lost) <= 7
    all_show([(1, range(1, 41)), (2, [step for step in range(41, 71) if step not in lost])])
    raw.write_bytes(true)
    view.poll(jobs)
    all_show([(1, range(1, 41)), (2, range(41, 71))])

    # The stitcher is killed in the middle of a frame, and another takes over.
    del view
    for name in ("stitched", jobs[1].label):
        with (path / name / file_name(1)).open("ab") as file:
            file.write(b"\x30\0\0\0\0\0")
    put(jobs[1], *points(2, range(41, 81)))
    view = View(path)
    view.poll(jobs)
    all_show([(1, range(1, 41)), (2, range(41, 81))])
    assert len(list((path / "stitched").iterdir())) == 2

    # A job falls back behind both.
    put(jobs[2], *points(3, range(21, 31)))
    view.poll(jobs)
    all_show([(1, range(1, 21)), (3, range(21, 31))])


def by_steps(view: Path) -> set[int]:
    """Steps that the whole curve has."""
    return {step for step, _ in by_accumulator(view)["stitched"][LOSS]}
