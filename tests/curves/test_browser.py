"""The page itself: what a person sees who opens our links."""

import io
import re
from pathlib import Path

import matplotlib.image
import numpy as np

from hpcft.curves.view import View
from tests.curves.chains import three_jobs
from tests.curves.conftest import Start
from tests.curves.page import Page, assert_one_curve, browser, needs_browser

BUILD = Path(__file__).parents[2] / "build/tensorboard"
pytestmark = needs_browser


def test_jobs_are_one_line_in_changing_colours_beside_other_runs_too_and_stitched_is_one(
    tmp_path: Path, start: Start
) -> None:
    View(tmp_path / "view/a").poll(three_jobs(tmp_path / "a"))
    server = start(tmp_path / "view", "true")
    with browser(tmp_path / "drawn", webgl=True) as driver:  # as people have it
        page = Page(driver, server.by_job)
        colours = colours_of(page, 3)
        assert len(set(colours.values())) == 3
        page.wait_until(lambda: all(pixels(page, "train/loss", colour) for colour in colours.values()))
        page.save(BUILD / "drawn.png")
    with browser(tmp_path / "profile") as driver:
        page = Page(driver, server.by_job)
        for tag, lengths in (("train/loss", [200, 201, 201]), ("validation/loss", [5, 5, 5])):
            lines = page.wait_for_lines(tag, lambda lines: len(lines) == 3)
            assert list(lines) == ["a/job001-4701", "a/job002-4702", "a/job003-4703"]
            assert [len(line) for line in lines.values()] == lengths
            assert_one_curve(lines)
        page.open(server.stitched)
        lines = page.wait_for_lines("train/loss", bool)
        assert list(lines) == ["a/stitched"] and len(lines["a/stitched"]) == 600

        # Two more runs, whose jobs begin in turn with those of the first.
        for name in "bc":
            View(tmp_path / "view" / name).poll(three_jobs(tmp_path / name))
        page.open(server.by_job)
        nine = colours_of(page, 9)
        assert len(set(nine.values())) == 6
        assert meet_in_other_colours(nine)

        # As many runs as TensorBoard has colours: by itself it would give each run one for all its jobs.
        for name in "defg":
            View(tmp_path / "view" / name).poll(three_jobs(tmp_path / name))
        page.open(server.by_job)
        assert meet_in_other_colours(colours_of(page, 21))


def pixels(page: Page, tag: str, colour: str) -> bool:
    """Whether the chart shows a line of this colour, `rgb(66, 80, 102)`, which is wider than any antialiasing."""
    if (chart := page.picture(tag)) is None:
        return False
    image = np.rint(matplotlib.image.imread(io.BytesIO(chart), format="png")[..., :3] * 255)
    return int((image == [int(part) for part in re.findall(r"\d+", colour)]).all(axis=-1).sum()) > 50


def colours_of(page: Page, jobs: int) -> dict[str, str]:
    """By job, once so many are listed."""

    def listed() -> bool:
        page.reload()
        return len(page.colours()) == jobs

    page.wait_until(listed)
    return page.colours()


def meet_in_other_colours(colours: dict[str, str]) -> bool:
    """Whether the jobs of each run follow each other in other colours; there are three of each."""
    by_run = [list(colours.values())[first : first + 3] for first in range(0, len(colours), 3)]
    return all(one != two != three for one, two, three in by_run)
