"""The page itself: what a person sees who opens our links, read from the drawn chart in a real browser."""

import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from hpcft.curves.server import link_by_job, link_stitched
from hpcft.curves.view import View
from tests.curves.chains import three_jobs
from tests.curves.conftest import Start
from tests.curves.test_server import wait_for
from tests.curves.test_view import expected_of_three_jobs

Line = tuple[str, list[tuple[float, float]]]
"""Colour, and the points in the browser's coordinates."""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed"),
]


def look_at(url: str, profile: Path) -> list[list[Line]]:
    """The lines of each chart on the page, from left to right; without 3D, TensorBoard draws them as SVG."""
    flags = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-3d-apis"
    quiet = "--disable-background-networking --no-first-run --window-size=1500,1000 --virtual-time-budget=15000"
    command = ["chromium", *flags.split(), *quiet.split(), f"--user-data-dir={profile}", "--dump-dom", url]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    charts = []
    for card in re.split(r"<card-view[ >]", page)[1:]:
        paths = re.findall(r'<path d="(M[^"]*)" style="fill: none; stroke: (rgb\([^)]*\)); opacity: 1;', card)
        lines = [
            (colour, [(float(x), float(y)) for x, y in re.findall(r"([-\d.]+),([-\d.]+)", path)])
            for path, colour in paths
        ]
        charts.append(sorted(lines, key=lambda line: line[1][0]))
    return charts


def test_jobs_are_one_line_that_changes_its_colour(tmp_path: Path, start: Start) -> None:
    View(tmp_path / "view").poll(three_jobs(tmp_path))
    server = start(tmp_path / "view", "true")
    wait_for(server, expected_of_three_jobs())
    charts = look_at(link_by_job(server.url), tmp_path / "profile")
    assert [[len(points) for _, points in chart] for chart in charts] == [[200, 201, 201], [5, 5, 5]]
    for chart in charts:
        assert len({colour for colour, _ in chart}) == 3
        for (_, before), (_, after) in pairwise(chart):
            assert before[-1] == after[0]
        for _, points in chart:
            assert all(left[0] < right[0] for left, right in pairwise(points))


def test_the_stitched_run_is_one_line_over_all_steps(tmp_path: Path, start: Start) -> None:
    View(tmp_path / "view").poll(three_jobs(tmp_path))
    server = start(tmp_path / "view", "false")
    wait_for(server, expected_of_three_jobs())
    charts = look_at(link_stitched(server.url).replace("?", "?smoothing=0&"), tmp_path / "profile")
    assert [[len(points) for _, points in chart] for chart in charts] == [[600], [13]]
