"""A page in headless Chromium, for tests: what it complained of, and how legible it is."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Dialog, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# As root it has no sandbox, and a virtual machine no graphics.
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")

# Charts in a closed part of the page are drawn when it is opened.
DRAWN = """() => [...document.querySelectorAll('[data-chart]')].every(
  one => one.querySelector('svg') || one.closest('details.more:not([open])'))"""


# Below it a colour of sRGB is linear.
NEARLY_BLACK = 0.04045


class Opened:
    """A page that is open, and everything that it complained of or asked for."""

    def __init__(self, page: "Page", file: Path) -> None:
        self.page, self.said = page, list[str]()
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("dialog", self._dismiss)
        page.on("request", lambda request: self.said.append(f"asks for {request.url}"))
        page.goto(file.as_uri())
        page.wait_for_function(DRAWN)
        self.said.remove(f"asks for {file.as_uri()}")

    def _dismiss(self, dialog: "Dialog") -> None:
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as browsers write them, by WCAG 2."""
    lights = sorted((luminance(one), luminance(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= NEARLY_BLACK else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
