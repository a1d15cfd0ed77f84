"""The picture of several runs: a line each in both panels, told apart, the best one thicker."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from hpcft.curves.overlay import MEANS, draw_overlay
from hpcft.curves.runcurves import RunCurves
from hpcft.curves.stitch import stitch
from tests.curves.chains import add_points, job_curve, log_job

SVG = "{http://www.w3.org/2000/svg}"


def lines(path: Path) -> dict[str, str]:
    """Style by the id of each line."""
    groups = ElementTree.parse(path).getroot().iter(f"{SVG}g")
    found = [group for group in groups if re.match("(train|validation)-loss-", group.attrib.get("id", ""))]
    return {group.attrib["id"]: group.find(f"{SVG}path").attrib["style"] for group in found}  # type: ignore[union-attr]


def chain(folder: Path, cut: int, last: int) -> RunCurves:
    """A run of two jobs."""
    jobs = [job_curve(folder, 1, 0), job_curve(folder, 2, cut)]
    for job, end in zip(jobs, (cut, last), strict=True):
        log_job(job, end)
    return RunCurves(folder.name, stitch(jobs))


def test_every_run_has_one_line_through_all_its_jobs_in_each_panel(tmp_path: Path) -> None:
    curves = [chain(tmp_path / f"grid-seed-{seed}", 100 * seed, 400) for seed in (1, 2)]
    draw_overlay(curves, tmp_path / "all.svg", "grid", "grid-seed-2")
    found = lines(tmp_path / "all.svg")
    assert sorted(found) == [f"{tag}-loss-grid-seed-{seed}" for tag in ("train", "validation") for seed in (1, 2)]
    assert len({re.search("stroke: (#......)", style)[1] for style in found.values()}) == 2  # type: ignore[index]
    assert "stroke-width: 2.6" in found["train-loss-grid-seed-2"]
    assert "stroke-width: 1.3" in found["train-loss-grid-seed-1"]
    text = (tmp_path / "all.svg").read_text()
    assert "seed-1<" in text and "seed-2 (best)<" in text
    assert f"means of {-(-400 // MEANS)} points" in text


def test_runs_without_validation_have_one_panel_and_none_at_all_no_picture(tmp_path: Path) -> None:
    job = job_curve(tmp_path, 1, 0)
    add_points(job.directory, "train/loss", [1, 2, 3], 1)
    two = RunCurves("two", stitch([]))
    draw_overlay([RunCurves("one", stitch([job])), two], tmp_path / "one.png", "one")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="nothing to draw yet"):
        draw_overlay([two], tmp_path / "two.png", "two")
    assert not (tmp_path / "two.png").exists()


def test_runs_begin_together_on_the_axis_of_hours_and_may_show_other_tags(tmp_path: Path) -> None:
    curves = [chain(tmp_path / name, 100, 400) for name in ("one", "two")]
    draw_overlay(curves, tmp_path / "all.svg", "grid", tags=["train/loss"], axis="hours")
    text = (tmp_path / "all.svg").read_text()
    assert [*lines(tmp_path / "all.svg")] == ["train-loss-one", "train-loss-two"]
    assert "active hours, without queue waits<" in text
    with pytest.raises(ValueError, match='nothing is logged as "test/loss"'):
        draw_overlay(curves, tmp_path / "all.svg", "grid", tags=["test/loss"])
