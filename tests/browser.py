"""A real browser without a network, for the pages that hpcft writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"),
    *("--no-first-run", "--window-size=1200,1000"),
)
NEEDS_CHROMIUM = pytest.mark.skipif(
    shutil.which("chromium") is None or shutil.which("chromedriver") is None, reason="chromium is not installed"
)


class Browser:
    """One window."""

    def __init__(self) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in FLAGS:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        self.driver.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)

    def open(self, page: Path) -> None:
        """Show a page, and wait until its curves are drawn."""
        self.faults()
        self.driver.get(page.absolute().as_uri())
        WebDriverWait(self.driver, 20).until(lambda _: self.all(".chart path"))

    def all(self, selector: str) -> list[WebElement]:
        """All elements of the page that a CSS selector means."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """The one that there is."""
        (found,) = self.all(selector)
        return found

    def texts(self, selector: str) -> list[str]:
        """Their words, as they are seen."""
        return [" ".join(element.text.split()) for element in self.all(selector)]

    def choose(self, value: str) -> None:
        """Click the choice of this value, which stays out of sight behind its label."""
        self.driver.execute_script("arguments[0].click()", self.one(f'input[value="{value}"]'))

    def point(self, element: WebElement, x: float, y: float) -> None:
        """Move the pointer to this place in an element, from its upper left corner."""
        middle = element.size["width"] / 2, element.size["height"] / 2
        action = ActionChains(self.driver, duration=0)
        action.move_to_element_with_offset(element, round(x - middle[0]), round(y - middle[1])).perform()

    def drag(self, element: WebElement, begin: tuple[float, float], end: tuple[float, float]) -> None:
        """Press at one place of an element, and let go at another."""
        self.point(element, *begin)
        ActionChains(self.driver, duration=0).click_and_hold().perform()
        self.point(element, *end)
        ActionChains(self.driver, duration=0).release().perform()

    def run(self, script: str, *arguments: object) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def dark(self, *, on: bool) -> None:
        """Whether the user likes pages dark."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def faults(self) -> list[str]:
        """What went wrong since the last look, and every request for anything but a file's own page."""
        found = [entry["message"] for entry in self.driver.get_log("browser")]
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                request = message["params"]
                if request.get("type") != "Document" and not request["request"]["url"].startswith("data:"):
                    found.append(request["request"]["url"])
        return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = Browser()
    yield found
    found.driver.quit()
