"""The curve in a line of text: as wide as there is room, high where the loss is, a colour a job."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from hpcft.curves.figure import COLOURS
from hpcft.curves.runcurves import RunCurves
from hpcft.curves.sparkline import sparkline
from hpcft.curves.stitch import stitch
from hpcft.curves.writer import CurveWriter
from tests.curves.chains import job_curve


def chain(folder: Path, losses: list[list[float]]) -> RunCurves:
    """A run whose jobs logged these losses, one after the other."""
    jobs, step = [], 0
    for number, some in enumerate(losses, 1):
        jobs.append(job_curve(folder, number, step))
        writer = CurveWriter(jobs[-1].directory)
        for loss in some:
            step += 1
            writer.scalar("train/loss", loss, step, wall_time=step)
        writer.close()
    return RunCurves("demo", stitch(jobs))


def test_a_falling_loss_falls_and_its_jobs_have_colours(tmp_path: Path) -> None:
    curves = chain(tmp_path, [[5 - step / 100 for step in range(first, first + 100)] for first in (0, 100, 200)])
    line = sparkline(curves, 63)
    assert line is not None
    blocks, words = line.plain.split("  ", 1)
    assert len(blocks) == 40 and words == "4.965 to 2.04"
    assert (blocks[0], blocks[-1]) == ("█", "▁")
    assert all(before >= after for before, after in pairwise(blocks))
    styles = [str(span.style) for span in line.spans]
    assert list(dict.fromkeys(styles)) == [*COLOURS[:3]] and styles.count(COLOURS[0]) in (13, 14)


def test_a_loss_over_decades_has_heights_of_logarithms_and_says_so(tmp_path: Path) -> None:
    line = sparkline(chain(tmp_path, [[10.0 ** (-step / 10) for step in range(32)]]), 100)
    assert line is not None
    assert line.plain.endswith(", log") and {*line.plain} >= {*"▁▂▃▄▅▆▇█"}


def test_one_loss_is_a_block_and_none_or_no_room_is_nothing(tmp_path: Path) -> None:
    one = sparkline(chain(tmp_path / "one", [[2.5]]), 80)
    assert one is not None and one.plain == "▁  2.5 to 2.5"
    assert sparkline(chain(tmp_path / "nan", [[float("nan")] * 3]), 80) is None
    assert sparkline(RunCurves("empty", stitch([])), 80) is None
    assert sparkline(chain(tmp_path / "narrow", [[1.0] * 100]), 25) is None
