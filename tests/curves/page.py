"""TensorBoard's page in a real browser: what a person sees on it, read from the drawn charts."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service

Line = list[tuple[float, float]]
"""Points in the browser's coordinates, in the order in which they are drawn."""

FLAGS = "--headless=new --no-sandbox --disable-dev-shm-usage --no-first-run --disable-background-networking"
AS_SVG = "--disable-gpu --disable-3d-apis"
"""Without WebGL TensorBoard draws its charts as SVG, which can be read."""
AS_PIXELS = "--use-angle=swiftshader --enable-unsafe-swiftshader"
PATHS = """
for (const card of document.querySelectorAll('card-view')) {
  if (card.querySelector('[title]')?.title != arguments[0]) continue
  const paths = [...card.querySelectorAll('line-chart svg path')]
  return paths.filter(path => path.style.stroke && path.style.opacity == 1)
    .map(path => [path.style.stroke, path.getAttribute('d')])
}
return []
"""
CHART = """
return [...document.querySelectorAll('card-view')].find(card => card.querySelector('[title]')?.title == arguments[0])
  ?.querySelector('line-chart .series-view')
"""
RUNS = """
return [...document.querySelectorAll('runs-data-table tb-data-table-content-row')]
  .map(row => [row.textContent.trim(), row.querySelector('.run-color-swatch').style.backgroundColor])
"""
TABS = """
return [...document.querySelectorAll('[role=tab]:not(.mat-mdc-tab-disabled) .plugin-name')]
  .map(tab => tab.textContent.trim())
"""

needs_browser = [
    pytest.mark.browser,
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")), reason="chromium or its driver is missing"
    ),
]


class Page:
    """A page that a link has led to."""

    def __init__(self, driver: webdriver.Chrome, link: str) -> None:
        driver.switch_to.new_window("tab")
        self.driver, self._tab = driver, driver.current_window_handle
        self.open(link)

    def open(self, link: str) -> None:
        """Leave this page for another."""
        self.driver.switch_to.window(self._tab)
        self.driver.get(link)

    def colours(self) -> dict[str, str]:
        """Of each run that is listed, in order."""
        return dict(self._ask(RUNS))

    def lines(self, tag: str) -> dict[str, Line]:
        """By run, in the order of the list: the line in that run's colour. Fails if two have one colour."""
        drawn = [(colour, points(path)) for colour, path in self._ask(PATHS, tag)]
        by_colour = dict(drawn)
        assert len(by_colour) == len(drawn)
        return {run: by_colour[colour] for run, colour in self.colours().items() if colour in by_colour}

    def wait_for_lines(
        self, tag: str, true: Callable[[dict[str, Line]], bool], seconds: float = 40.0
    ) -> dict[str, Line]:
        """The lines once they are so; the page is told to reload now and then."""
        end = time.monotonic() + seconds
        while not true(lines := self._lines_now(tag)):
            assert time.monotonic() < end, {run: len(line) for run, line in lines.items()}
            self.reload()
            time.sleep(1)
        return lines

    def reload(self) -> None:
        """Tell the page to ask for what is new; by itself it does so twice a minute."""
        self._ask("document.querySelector('.reload-button')?.click()")

    def wait_until(self, true: Callable[[], bool], seconds: float = 40.0) -> None:
        """Until the page shows it."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, self._ask("return document.body.innerText")
            time.sleep(0.5)

    def tabs(self) -> set[str]:
        """Names of the plugins that have data."""
        return {tab.lower() for tab in self._ask(TABS)} - {"time series"}

    def picture(self, tag: str) -> bytes | None:
        """The chart of a tag as a PNG, once there is one."""
        chart = self._ask(CHART, tag)
        return chart and bytes(chart.screenshot_as_png)

    def save(self, path: Path) -> None:
        """A screenshot."""
        self._ask("return 0")
        path.parent.mkdir(parents=True, exist_ok=True)
        assert self.driver.save_screenshot(str(path))

    def _lines_now(self, tag: str) -> dict[str, Line]:
        try:
            return self.lines(tag)
        except (AssertionError, WebDriverException):  # it is being drawn anew
            return {}

    def _ask(self, script: str, *arguments: object) -> Any:
        self.driver.switch_to.window(self._tab)
        return self.driver.execute_script(script, *arguments)


@contextmanager
def browser(folder: Path, *, webgl: bool = False) -> Iterator[webdriver.Chrome]:
    """A browser that keeps its files in a folder; at its end it has had nothing to complain of."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS.split(), *(AS_PIXELS if webgl else AS_SVG).split(), "--window-size=1500,1000"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={folder}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
        assert [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []  # type: ignore[no-untyped-call]
    finally:
        driver.quit()


def points(path: str) -> Line:
    """Those of an SVG path."""
    return [(float(x), float(y)) for x, y in re.findall(r"([-\d.]+),([-\d.]+)", path)]


def assert_one_curve(lines: dict[str, Line]) -> None:
    """Each line begins where the one before ends, and none goes back."""
    for line in lines.values():
        assert all(left[0] < right[0] for left, right in pairwise(line))
    for before, after in pairwise(lines.values()):
        assert before[-1] == after[0]
