"""Five pages as people see them: on a desktop, a laptop and a phone, light and dark, with all their parts open."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from bench.selftest.opened_page import DRAWN, Opened, contrast

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTHS = (1400, 1024, 390)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
NAMES = ("small", "all sizes", "user", "ranks", "peers")

# Every text with its colour and what is behind it.
TEXTS = """() => {
  const found = [], page = getComputedStyle(document.body).backgroundColor;
  for (const text of document.querySelectorAll('[data-chart] svg text'))
    if (text.textContent.trim()) found.push([text.textContent, getComputedStyle(text).fill, page]);
  const parts = 'h1, h2, h3, p, a, th, td, dt, dd, li, pre, summary, button, figcaption, strong, span.status';
  for (const element of document.querySelectorAll(parts)) {
    if (!element.textContent.trim() || !element.checkVisibility()) continue;
    let behind = element;
    while (behind && getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
    found.push([
      element.textContent.trim().slice(0, 60), getComputedStyle(element).color,
      behind ? getComputedStyle(behind).backgroundColor : page,
    ]);
  }
  return found;
}"""

# Pairs of texts in a chart that lie on each other, by more than the frame of a letter.
OVERLAPS = """() => [...document.querySelectorAll('[data-chart] svg')].flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')].filter(text => text.textContent.trim())
    .map(text => [text.textContent, text.getBoundingClientRect()]);
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3;
  return texts.flatMap(([one, box], number) =>
    texts.slice(number + 1).filter(([, other]) => meet(box, other)).map(([other]) => `${one} | ${other}`));
})"""

# Texts of charts that reach beyond the window, and elements that hide a part of themselves without saying so.
CLIPPED = """() => {
  const beyond = [...document.querySelectorAll('[data-chart] svg text')].filter(text => {
    const box = text.getBoundingClientRect();
    return box.width && (box.left < 0 || box.right > innerWidth);
  });
  const hidden = [...document.querySelectorAll('main *, header *')].filter(element => {
    if (element.closest('svg') || !element.checkVisibility() || element.scrollWidth <= element.clientWidth + 1)
      return false;
    if (getComputedStyle(element).overflowX === 'visible') return false;
    const hint = element.previousElementSibling;
    return !(hint && hint.matches('.hint') && hint.checkVisibility());
  });
  return [...beyond, ...hidden].map(element => `${element.tagName} ${element.textContent.trim().slice(0, 60)}`);
}"""

# Labels that an axis has twice.
REPEATED = """() => [...document.querySelectorAll('.role-axis-label')].flatMap(axis => {
  const labels = [...axis.querySelectorAll('text')].filter(text => getComputedStyle(text).opacity > 0)
    .map(text => text.textContent);
  return labels.filter((label, number) => labels.indexOf(label) < number);
})"""


@pytest.fixture(scope="module", params=NAMES)
def opened(browser: "Browser", pages: dict[str, Path], request: pytest.FixtureRequest) -> Iterator["Page"]:
    """Open a page, and all parts of it."""
    context = browser.new_context(viewport={"width": WIDTHS[0], "height": 900}, offline=True)
    page = Opened(context.new_page(), pages[request.param]).page
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    page.wait_for_function(DRAWN)
    yield page
    context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_no_label_is_on_another_and_nothing_is_clipped_without_a_hint(opened: "Page", width: int) -> None:
    fit(opened, width)
    assert opened.evaluate(OVERLAPS) == []
    assert opened.evaluate(CLIPPED) == []
    assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_text_is_legible(opened: "Page", scheme: Literal["light", "dark"]) -> None:
    opened.emulate_media(color_scheme=scheme)
    texts: list[tuple[str, str, str]] = opened.evaluate(TEXTS)
    assert len(texts) > 100
    faint = {text for text, ink, ground in texts if contrast(ink, ground) < 4.5}
    assert faint == set()


def test_no_axis_has_a_label_twice_and_no_bar_a_number_for_its_line(opened: "Page") -> None:
    assert opened.evaluate(REPEATED) == []
    bars = "section[aria-labelledby=alive] .mark-text text"
    labels: list[Any] = [text.strip() for text in opened.locator(bars).all_text_contents()]
    assert [label for label in labels if label.isdecimal()] == []


def fit(page: "Page", width: int) -> None:
    """Make the window so wide, and wait until its charts are."""
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_function(
        """() => [...document.querySelectorAll('[data-chart]')].every(place => {
          const svg = place.querySelector('svg').getBoundingClientRect(), there = place.getBoundingClientRect();
          return Math.abs(svg.width - there.width) < 4;
        })""",
        timeout=10_000,
    )
