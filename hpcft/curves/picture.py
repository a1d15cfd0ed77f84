"""A run's curves as one picture: a plot for each measure, each job in its colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpcft.curves.axis import Axis, place_of_step, places, start_of, thin
from hpcft.curves.figure import (
    COLOURS,
    GREY,
    INK,
    TINT,
    Look,
    chosen,
    dress,
    is_evaluation,
    look,
    panels,
    write_picture,
)
from hpcft.curves.points import join_points, make_points
from hpcft.curves.runcurves import TRAIN, VALIDATION, RunCurves
from hpcft.curves.stitch import JobCurve, Segment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PIXELS = 1500
"""Across the plot. More points than a few per pixel cannot be seen."""
_LISTED = 36
"""Jobs in the legend at most; of a longer chain the first and the last."""


def draw(curves: RunCurves, out: Path, tags: Sequence[str] = (), axis: Axis = "step") -> None:
    """Writes the picture to `out`, whole or not at all, and makes its folder; its suffix (.png, .svg) is the format.

    Without `tags`, the losses of training and validation. Raises ValueError for another suffix, a tag that is not
    there, and where no job has logged a loss yet; OSError if it cannot write.
    """
    sheet = Sheet(curves, chosen(tags, curves.stitched.tags), axis)
    rows = -(-len(sheet.listed) // sheet.columns)
    write_picture(out, sheet.fill, (11.0, 2.2 + 3.8 * len(sheet.panels) + 0.21 * rows))


@dataclass(frozen=True)
class Sheet:
    """One picture of one run."""

    curves: RunCurves
    tags: Sequence[str]
    axis: Axis

    @cached_property
    def panels(self) -> dict[str, list[str]]:
        """The tags of each plot, by what they measure."""
        return panels(self.tags)

    @cached_property
    def shown(self) -> list[Segment]:
        """All that is drawn."""
        stitched = self.curves.stitched
        return [part for tag in self.tags for part in (*stitched.kept(tag), *stitched.superseded(tag))]

    @cached_property
    def drawn(self) -> list[JobCurve]:
        """The jobs with a surviving point, oldest first."""
        labels = {part.job.label for tag in self.tags for part in self.curves.stitched.kept(tag)}
        return [job for job in self.curves.stitched.jobs if job.label in labels]

    @cached_property
    def looks(self) -> dict[str, Look]:
        """By job label; they are the same in every picture of a run."""
        began = [job for job in self.curves.stitched.jobs if job.label in self.curves.places]
        return {job.label: look(index) for index, job in enumerate(began)}

    @cached_property
    def listed(self) -> list[tuple[str, Look | None]]:
        """The jobs in the legend."""
        found = [(self.curves.words(job), self.looks[job.label]) for job in self.drawn]
        if len(found) <= _LISTED:
            return [*found]
        half = _LISTED // 2
        return [*found[:half], (f"… {len(found) - 2 * half + 1} more", None), *found[1 - half :]]

    @property
    def columns(self) -> int:
        """Of the legend."""
        return max(1, min(5, int(150 / (8 + max(len(words) for words, _ in self.listed)))))

    @cached_property
    def span(self) -> tuple[float, float]:
        """From the first point to the last, on the axis."""
        ends = [places(self.curves, part.job, part.points, self.axis) for part in self.shown]
        first = min(float(end[0]) for end in ends)
        if self.axis != "step":  # what a job took to start is seen, too
            first = min(first, *(start_of(self.curves, job, self.axis) for job in self.drawn[:1]))
        return first, max(float(end[-1]) for end in ends)

    def fill(self, figure: Figure) -> None:
        """Draw it."""
        first, last = self.span
        margin = max(0.5 if self.axis == "step" else 1e-6, (last - first) * 0.015)
        rows = list(figure.subplots(len(self.panels), 1, sharex=True, squeeze=False)[:, 0])
        for axes, (measure, tags) in zip(rows, self.panels.items(), strict=True):
            axes.set_xlim(first - margin, last + margin)
            for tag in tags:
                self._draw_tag(axes, tag)
            self._mark_best(axes, tags)
            self._mark_starts(axes, named=axes is rows[0])
            self._mark_phases(axes, named=axes is rows[0])
            title = self.curves.name if axes is rows[0] else ""
            dress(axes, title, self.axis if axes is rows[-1] else None, measure, 38 if self.curves.phases else 22)
            self._explain(axes, tags)
        self._list_jobs(figure)

    def _draw_tag(self, axes: Axes, tag: str) -> None:
        stitched, slug = self.curves.stitched, tag.replace("/", "-")
        for part in stitched.superseded(tag):
            lines = [one for one in stitched.kept(tag) if one.job == part.job]
            before = [one.points[one.points.steps < part.points.steps[0]][-1:] for one in lines]
            self._draw_line(axes, part, Segment(part.job, join_points(before)), f"superseded-{slug}-{part.job.label}")
        left: Segment | None = None
        for part in stitched.kept(tag):
            # Nothing is learnt in a wait, or while a job starts: only evaluations, which are few, are joined over them.
            joined = self.axis == "step" or (self.axis == "hours" and is_evaluation(tag))
            self._draw_line(axes, part, left if joined else None, f"{slug}-{part.job.label}")
            left = Segment(part.job, part.points[-1:])

    def _draw_line(self, axes: Axes, part: Segment, left: Segment | None, name: str) -> None:
        """One line that sets out at the point of `left`, if any, and is broken where losses are of another kind; `name`
        becomes its id in the SVG."""
        at = places(self.curves, part.job, part.points, self.axis)
        few = thin(part.points, at, *self.span, _PIXELS)
        before = left.points if left else make_points([])
        whole = join_points([before, part.points[few]])
        begin = places(self.curves, left.job, before, self.axis) if left and len(before) else at[:0]
        at = np.concatenate([begin, at[few]])
        values = np.where(np.isfinite(whole.values), whole.values, np.nan)
        gaps = [phase.begins for phase in self.curves.phases if phase.apart]
        cuts = np.searchsorted(whole.steps, gaps, side="right")
        (line,) = axes.plot(np.insert(at, cuts, np.nan), np.insert(values, cuts, np.nan), linewidth=1.0, gid=name)
        line.set(solid_joinstyle="round", color=GREY, zorder=1)
        superseded = name.startswith("superseded")
        evaluated = is_evaluation(name.removeprefix("superseded-").replace("-", "/", 1))
        if evaluated:
            # The dot at `before` belongs to the job before, and is there already.
            line.set(linewidth=1.9, marker="o", markevery=slice(len(before), None), markeredgecolor="white")
            crowded = len(few) > 40 or len(axes.lines) > 60
            line.set(markersize=3.5 if crowded else 6.0, markeredgewidth=0.4 if crowded else 0.9)
        elif len(whole) == 1:
            line.set(marker="o", markersize=4.0)
        elif superseded:
            # Dots behind the curve that was trained again, which show on both its sides even where both are the same.
            line.set(linewidth=2.6, linestyle=(0, (0.01, 1.5)), dash_capstyle="round")
        if not superseded:
            style = self.looks[part.job.label]
            line.set(color=style.colour if evaluated else _paler(style.colour))
            if style.dashes:
                line.set(linestyle=(0, style.dashes))
            # Earlier jobs lie on top: the line that sets out at their last dot shall not cross it.
            line.set(zorder=(4 if evaluated else 2) - len(axes.lines) / 10_000)

    def _mark_best(self, axes: Axes, tags: Sequence[str]) -> None:
        """A ring around the validation loss of the best model that is on disk."""
        best = self.curves.best
        if best is None or VALIDATION not in tags:
            return
        if (at := self._place_of_validation(best.step)) is not None:
            label = f"best on disk: {best.loss:.4g} at step {best.step:,} ({best.where})"
            (ring,) = axes.plot([at], [best.loss], marker="o", linestyle="none", color=INK, gid="best", label=label)
            ring.set(markersize=12, markerfacecolor="none", markeredgewidth=1.6, zorder=6)

    def _place_of_validation(self, step: int) -> float | None:
        for part in self.curves.stitched.kept(VALIDATION):
            if len(point := part.points[part.points.steps == step]):
                return float(places(self.curves, part.job, point, self.axis)[0])
        return None

    def _mark_starts(self, axes: Axes, *, named: bool) -> None:
        """A dashed line where each job after the first begins, and above the upper plot the name of every job."""
        low, high = axes.get_xlim()
        starts = [max(low, start_of(self.curves, job, self.axis)) for job in self.drawn]
        width = 0.8 if len(self.drawn) <= 20 else 0.4
        for job, start in zip(self.drawn[1:], starts[1:], strict=True):
            axes.axvline(start, color=GREY, linewidth=width, dashes=(4, 3), zorder=0, gid=f"start-{job.label}")
        if not named:
            return
        names = [job.label for job in self.drawn]
        if not _fit(starts, names, high - low):
            names = [f"{job.number}" for job in self.drawn]
            if len(starts) > 1 and starts[1] - starts[0] > _width("job 1") * (high - low):
                names[0] = f"job {names[0]}"
        free = -np.inf
        for job, start, name in zip(self.drawn, starts, names, strict=True):
            if start < free:
                continue
            free = start + _width(name) * (high - low)
            axes.annotate(
                name, (start, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 4), textcoords="offset points",
                color=self.looks[job.label].colour, fontsize=8.5, ha="left", va="bottom", annotation_clip=False,
            )  # fmt: skip

    def _mark_phases(self, axes: Axes, *, named: bool) -> None:
        """Tinted ground for every second phase, a line where one follows another, and names above those of the jobs."""
        low, high = axes.get_xlim()
        for number, (name, left, right) in enumerate(self._phases_begun(low, high)):
            if number % 2:
                axes.axvspan(left, right, facecolor=TINT, edgecolor="none", zorder=-1, gid=f"phase-{name}")
            if number:
                axes.axvline(left, color=INK, linewidth=1.1, zorder=0, gid=f"phase-begins-{name}")
            if named:
                axes.annotate(
                    f"phase {name}" if number == 0 else name, (left, 1.0), xycoords=("data", "axes fraction"),
                    xytext=(0, 19), textcoords="offset points", color=INK, fontsize=9.5, fontweight="bold", ha="left",
                    va="bottom", annotation_clip=False,
                )  # fmt: skip

    def _phases_begun(self, low: float, high: float) -> Iterator[tuple[str, float, float]]:
        """Name, left and right edge of each phase that has a place in the picture."""
        phases = self.curves.phases
        borders = [place_of_step(self.curves, phase.begins, self.axis) for phase in phases[1:]]
        edges = [low, *(border for border in borders if border is not None and border < high)]
        for phase, left, right in zip(phases, edges, [*edges[1:], high], strict=False):
            yield phase.name, left, right

    def _explain(self, axes: Axes, tags: Sequence[str]) -> None:
        """The legend of a plot: what a line's look means; its colour is told by the names of the jobs."""
        from matplotlib.lines import Line2D

        stitched, lines = self.curves.stitched, []
        names = {TRAIN: "training loss", VALIDATION: "validation loss"}
        for tag in tags:
            line = Line2D([], [], color=INK, linewidth=1.0, label=names.get(tag, tag))
            if is_evaluation(tag):
                line.set(linewidth=1.9, marker="o", markersize=6.0, markeredgecolor="white")
            lines.append(line)
        lines += [line for line in axes.lines if line.get_gid() == "best"]
        if any(stitched.superseded(tag) for tag in tags):
            line = Line2D([], [], color=GREY, linewidth=2.6, linestyle=(0, (0.01, 1.5)), dash_capstyle="round")
            line.set(label="trained again by a later job")
            lines.append(line)
        if len(self.drawn) > 1:
            lines.append(Line2D([], [], color=GREY, linewidth=0.8, dashes=(4, 3), label="a job begins"))
        axes.legend(handles=lines, loc="best", frameon=True, framealpha=0.9, edgecolor="none", labelcolor=INK)

    def _list_jobs(self, figure: Figure) -> None:
        """The jobs below the plots, each with its line."""
        from matplotlib.lines import Line2D

        lines = []
        for words, style in self.listed:
            line = Line2D([], [], linewidth=2.2, label=words, color=style.colour if style else "none")
            if style and style.dashes:
                line.set(linestyle=(0, style.dashes))
            lines.append(line)
        figure.legend(
            handles=lines, loc="outside lower left", ncols=self.columns, frameon=False, fontsize=8.5, labelcolor=INK,
            columnspacing=1.4, handlelength=2.0 if len(lines) <= len(COLOURS) else 3.2,
        )  # fmt: skip


def _paler(colour: str) -> tuple[float, float, float]:
    """`colour` a quarter of the way to white, and opaque: what lies behind must not change a job's colour."""
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return (0.25 + 0.75 * red, 0.25 + 0.75 * green, 0.25 + 0.75 * blue)


def _fit(starts: list[float], names: list[str], span: float) -> bool:
    gaps = np.diff([*starts, starts[0] + span * 1.02])
    return all(gap >= _width(name) * span for gap, name in zip(gaps, names, strict=True))


def _width(name: str) -> float:
    """How much of the plot's width a job's name takes, with a little air."""
    return 0.0065 * (len(name) + 1)
