"""The page in headless Chromium, as people see it: wide and narrow, light and dark, by pointer and keyboard."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from bench.selftest.recorded_run import HOSTILE, LOADS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Locator, Page, ViewportSize

sync_api = pytest.importorskip("playwright.sync_api", reason="browser tests want the extra: pip install '.[check]'")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("there is no Chromium or Chrome on the PATH", allow_module_level=True)

# As root it has no sandbox, and a virtual machine no graphics.
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")

DESKTOP: "ViewportSize" = {"width": 1280, "height": 900}
PHONE: "ViewportSize" = {"width": 390, "height": 844}
# A4 within its margins.
PAPER: "ViewportSize" = {"width": 718, "height": 1046}

# Every text with its colour, and that of what is behind it: in a chart a mark that it stands on, or else the page.
TEXTS = """() => {
  const found = [], page = getComputedStyle(document.body).backgroundColor;
  const inside = (text, mark) => text.left >= mark.left - 1 && text.right <= mark.right + 1
    && text.top >= mark.top - 1 && text.bottom <= mark.bottom + 1;
  for (const text of document.querySelectorAll('[data-chart] svg text')) {
    if (!text.textContent.trim()) continue;
    const box = text.getBoundingClientRect();
    const bars = [...text.closest('svg').querySelectorAll('.mark-rect path')];
    const behind = bars.find(bar => inside(box, bar.getBoundingClientRect()));
    found.push([text.textContent, getComputedStyle(text).fill, behind ? getComputedStyle(behind).fill : page]);
  }
  for (const element of document.querySelectorAll('h1, h2, p, a, th, td, summary, button, figcaption, strong')) {
    if (!element.textContent.trim() || !element.checkVisibility()) continue;
    let behind = element;
    while (behind && getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
    found.push([
      element.textContent.trim(), getComputedStyle(element).color,
      behind ? getComputedStyle(behind).backgroundColor : page,
    ]);
  }
  return found;
}"""

# Of every chart: its width and height on the page, how long its lines are, how many marks it has, and whether a mark is
# nowhere.
CHARTS = """places => places.map(place => {
  const svg = place.querySelector('svg'), box = svg.getBoundingClientRect();
  const marks = [...svg.querySelectorAll('.mark-line path, .mark-symbol path, .mark-rect path, .mark-rule line')];
  const shown = marks.filter(mark => +getComputedStyle(mark).opacity > 0 && mark.getBBox);
  return {
    width: box.width, height: box.height, right: box.right,
    lines: [...svg.querySelectorAll('.mark-line path')].map(path => path.getTotalLength()),
    marks: shown.filter(mark => { const b = mark.getBBox(); return b.width + b.height > 2; }).length,
    lost: marks.some(mark => /NaN|undefined/.test(mark.outerHTML)),
  };
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


class Opened:
    """A page that is open, and everything that it complained of or asked for."""

    def __init__(self, page: "Page", file: Path) -> None:
        self.page, self.said = page, list[str]()
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("dialog", self._dismiss)
        page.on("request", lambda request: self.said.append(f"asks for {request.url}"))
        page.goto(file.as_uri())
        page.wait_for_function("[...document.querySelectorAll('[data-chart]')].every(one => one.querySelector('svg'))")
        self.said.remove(f"asks for {file.as_uri()}")

    def _dismiss(self, dialog: "Dialog") -> None:
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def opened(browser: "Browser", page: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    context = browser.new_context(viewport=request.param, color_scheme="light", offline=True)
    yield Opened(context.new_page(), page)
    context.close()


def test_nothing_is_complained_of_and_nothing_asked_for(opened: Opened) -> None:
    assert opened.said == []


def test_every_chart_is_drawn_within_the_page(opened: Opened) -> None:
    viewport = opened.page.viewport_size
    assert viewport
    charts: list[dict[str, Any]] = opened.page.eval_on_selector_all("[data-chart]", CHARTS)
    # Two of time and memory, four loads, what was alive, and three figures over time.
    assert len(charts) == 2 + 4 + 1 + 3
    for chart in charts:
        assert chart["width"] > 250
        assert chart["height"] > 70
        assert chart["right"] <= viewport["width"]
        assert chart["marks"] >= 3
        assert not chart["lost"]
        assert all(length > 20 for length in chart["lines"])
    assert sum(bool(chart["lines"]) for chart in charts) == len(charts) - 1


def test_the_page_is_not_wider_than_its_window(opened: Opened) -> None:
    assert opened.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_equal_axes(opened: Opened) -> None:
    """Charts to be compared have axes with the same labels."""
    labels = [
        place.locator(".role-axis-label text").all_text_contents()
        for place in opened.page.locator("section[aria-labelledby=timelines] [data-chart]").all()
    ]
    assert len(labels) == 4
    assert all(one == labels[0] for one in labels)
    assert any(label.endswith("x") for label in labels[0])


def strategies(page: "Page") -> list[str]:
    return page.locator("#results tbody th").all_text_contents()


def heading(page: "Page", name: str) -> "Locator":
    return page.locator("#results thead th").filter(has_text=name).first


def test_a_heading_sorts_by_pointer_and_by_keyboard(opened: Opened) -> None:
    page, by_seconds = opened.page, sorted((seconds, name) for name, (seconds, _, _) in LOADS.items())
    fastest_first = [name for _, name in by_seconds if name != "per_tensor"]
    column = heading(page, "first output")
    column.click()
    page.wait_for_function("document.querySelector('#results tbody th').textContent == 'streamed'")
    # What failed was not timed, and is last either way.
    assert strategies(page) == [*fastest_first, "per_tensor"]
    assert column.get_attribute("aria-sort") == "ascending"
    column.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#results tbody th').textContent == 'baseline'")
    assert strategies(page) == [*reversed(fastest_first), "per_tensor"]
    assert column.get_attribute("aria-sort") == "descending"


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("streamed-small-cpu in run 0008", ("0.810 s", "0000008", "2.8.0", "3.11.7", "2026-11-08 03:00", "failed")),
        ("streamed-small-cpu changed in run 0005", ("+60.7 %", "0.502 s", "0.808 s", "0000005", "2.5.0")),
    ],
    ids=["run", "change point"],
)
def test_a_point_of_the_history_says_what_it_is(opened: Opened, label: str, words: tuple[str, ...]) -> None:
    chart = opened.page.locator("section[aria-labelledby=history] [data-chart]").last
    chart.scroll_into_view_if_needed()
    chart.locator(f"path[aria-label^='{label}:']").hover(timeout=5000)
    tooltip = opened.page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    for word in words:
        assert word in tooltip.inner_text()


def test_a_name_from_a_record_stays_text(opened: Opened) -> None:
    assert HOSTILE in strategies(opened.page)
    assert opened.page.locator("b, i").count() == 0
    figure = opened.page.locator("section[aria-labelledby=frontier] svg").first
    assert HOSTILE in "".join(figure.locator("text").all_text_contents())
    assert not any("dialog" in said for said in opened.said)


def test_the_raw_record_is_one_click_or_key_away(opened: Opened) -> None:
    button = opened.page.get_by_role("button", name="raw record of streamed-small")
    button.focus()
    opened.page.keyboard.press("Enter")
    raw = opened.page.locator("[popover]:popover-open pre")
    assert json.loads(raw.inner_text())["first_logits_seconds"] == pytest.approx(LOADS["streamed"][0] * 1.62)
    opened.page.keyboard.press("Escape")
    assert raw.count() == 0


def test_every_chart_has_words_and_a_table(opened: Opened) -> None:
    for figure in opened.page.locator("figure").all():
        assert len(figure.locator("[role=graphics-document]").get_attribute("aria-label") or "") > 40
        figure.locator("summary").click()
        assert figure.locator("table tbody tr").first.is_visible()
        assert figure.locator("table tbody tr").count() >= 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_is_legible(browser: "Browser", page: Path, scheme: Literal["light", "dark"]) -> None:
    context = browser.new_context(viewport=DESKTOP, color_scheme=scheme)
    opened = Opened(context.new_page(), page).page
    texts: list[tuple[str, str, str]] = opened.evaluate(TEXTS)
    assert len(texts) > 300
    faint = {text for text, ink, ground in texts if contrast(ink, ground) < 4.5}
    assert faint == set()
    context.close()


def test_it_prints_on_white_within_the_paper(browser: "Browser", page: Path) -> None:
    context = browser.new_context(viewport=DESKTOP, color_scheme="dark")
    opened = Opened(context.new_page(), page).page
    opened.emulate_media(media="print")
    opened.set_viewport_size(PAPER)
    assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    ground = opened.eval_on_selector("body", "body => getComputedStyle(body).backgroundColor")
    assert ground == "rgb(255, 255, 255)"
    assert contrast(ground, opened.eval_on_selector("h1", "heading => getComputedStyle(heading).color")) > 7
    assert opened.locator("nav").is_hidden()
    assert opened.locator("[data-chart] svg").first.is_visible()
    # What a part of a bar is stands in the data only, if there is no room for it in the bar.
    assert opened.locator(".alive details td").first.is_visible()
    context.close()


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as browsers write them, by WCAG 2."""
    lights = sorted((luminance(one), luminance(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
