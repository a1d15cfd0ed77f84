"""All that can become of event files, as TensorBoard's three readers see it: the same curve, each value its job's."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hpcft.curves.raw import RAW
from hpcft.curves.rewind import joined
from hpcft.curves.server import TensorBoard, start_tensorboard
from hpcft.curves.shown import read_shown
from hpcft.curves.view import View
from tests.curves.cases import CASES, Case, seen

pytestmark = [pytest.mark.server, pytest.mark.slow]
Seen = dict[str, dict[str, list[tuple[int, str]]]]
"""Per TensorBoard run and tag: step and value, in the order they are shown."""
READERS = ("accumulator", "data server", "python loader")


def by_accumulator(view: Path) -> Seen:
    found: Seen = {}
    for path in sorted(path for path in view.iterdir() if path.is_dir()):
        accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
        tags = accumulator.Tags()["scalars"]
        found[path.name] = dict(seen({tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in tags}))
    return {run: tags for run, tags in found.items() if tags}


def by_itself(view: Path) -> Seen:
    found: Seen = {}
    for path in (path for path in view.iterdir() if path.is_dir()):
        shown = read_shown(path)
        assert shown is not None
        curves = {tag: joined(curve) for tag, curve in shown.curves.items() if not tag.startswith(RAW)}
        rows = {tag: list(zip(c.steps.tolist(), c.values.tolist(), strict=True)) for tag, c in curves.items()}
        found[path.name] = dict(seen(rows))  # type: ignore[arg-type]
    return {run: tags for run, tags in found.items() if tags}


def ask(server: TensorBoard, path: str) -> object:
    with urllib.request.urlopen(server.url + "data/" + path, timeout=30) as answer:
        return json.loads(answer.read())


def by_server(server: TensorBoard) -> dict[str, Seen]:
    """By case."""
    found: dict[str, Seen] = {}
    tags = ask(server, "plugin/scalars/tags")
    assert isinstance(tags, dict)
    for run, of_run in tags.items():
        case, _, name = run.partition("/")
        for tag in of_run:
            rows = ask(server, f"plugin/scalars/scalars?{urllib.parse.urlencode({'run': run, 'tag': tag})}")
            assert isinstance(rows, list)
            found.setdefault(case, {}).setdefault(name, {}).update(seen({tag: [row[1:] for row in rows]}))
    return found


def wait_until(holds: Callable[[], bool], seconds: float = 90.0) -> None:
    """Raises TimeoutError where it never does. Between two of a server's reloads a tag may be listed and not there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.HTTPError):
            if holds():
                return
        time.sleep(0.3)
    raise TimeoutError("waited in vain")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Case], dict[str, dict[str, Seen]]]]:
    """All cases, and per reader what it says of each; both servers look at all of them at once."""
    root = tmp_path_factory.mktemp("cases")
    cases = {name: make(root / "raw" / name) for name, make in CASES.items()}
    for name, one in cases.items():
        (root / "views").mkdir(exist_ok=True)
        View(root / "views" / name).poll(one.jobs)
    servers = {
        name: start_tensorboard(root / "views", extra=["--load_fast", fast, "--reload_interval", "1"])
        for name, fast in (("data server", "true"), ("python loader", "false"))
    }
    expected = {name: expected_of(one) for name, one in cases.items()}
    found = {
        "accumulator": {name: by_accumulator(root / "views" / name) for name in cases},
        "view itself": {name: by_itself(root / "views" / name) for name in cases},
    }
    try:
        for name, server in servers.items():

            def shows_all(name: str = name, server: TensorBoard = server) -> bool:
                found[name] = by_server(server)
                return found[name] == expected

            with contextlib.suppress(TimeoutError):  # which of them differ, the tests say
                wait_until(shows_all)
        yield cases, found
    finally:
        for server in servers.values():
            server.process.terminate()
            server.process.wait(20)


def expected_of(one: Case) -> Seen:
    return {run: dict(seen(tags)) for run, tags in one.shown().items()}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CASES)
def test_three_readers_see_the_surviving_points_of_each_job(
    made: tuple[dict[str, Case], dict[str, dict[str, Seen]]], name: str
) -> None:
    cases, found = made
    expected = expected_of(cases[name])
    for reader in READERS:
        assert found[reader].get(name) == expected, reader
    assert found["view itself"][name] == expected, "the view reads of itself what others read"
    for tags in expected.values():
        for rows in tags.values():
            assert all(before[0] < after[0] for before, after in pairwise(rows))
