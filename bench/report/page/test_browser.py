"""The page in headless Chromium, as people see it: wide and narrow, light and dark, by pointer and keyboard."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.selftest.opened_page import Opened, contrast
from bench.selftest.recorded_run import HOSTILE, LOADS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, ViewportSize

DESKTOP: "ViewportSize" = {"width": 1280, "height": 900}
PHONE: "ViewportSize" = {"width": 390, "height": 844}
# A4 within its margins.
PAPER: "ViewportSize" = {"width": 718, "height": 1046}

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
    figure = opened.page.locator("section[aria-labelledby=frontier] [data-chart] svg").first
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
    context.close()


def test_code_is_copied_without_a_network(browser: "Browser", pages: dict[str, Path]) -> None:
    context = browser.new_context(viewport=DESKTOP, offline=True, permissions=["clipboard-read", "clipboard-write"])
    opened = Opened(context.new_page(), pages["small"]).page
    button = opened.get_by_role("button", name="copy the lines to copy").first
    button.click()
    opened.wait_for_function("document.querySelector('[data-copy]').textContent == 'copied'")
    assert opened.evaluate("navigator.clipboard.readText()") == "pytest bench --sizes small --strategies mmap_assign"
    opened.get_by_text("The code of load_mmap_assign.py").click()
    assert "def mmap_assign(" in opened.locator("#code").inner_text()
    context.close()


def test_a_chart_in_a_closed_part_is_drawn_when_it_is_opened(browser: "Browser", pages: dict[str, Path]) -> None:
    context = browser.new_context(viewport=PHONE, offline=True)
    opened = Opened(context.new_page(), pages["peers"]).page
    part = opened.locator("details.more").first
    chart = part.locator("[data-chart]").first
    assert chart.locator("svg").count() == 0
    part.locator("summary").first.click()
    chart.locator("svg").wait_for()
    assert opened.eval_on_selector_all("details.more[open] [data-chart]", CHARTS)[0]["width"] > 250
    context.close()
