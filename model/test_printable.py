"""Tests of text from a hostile file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("model.layers.0.weight", "model.layers.0.weight"),
        ("größe.权重", "größe.权重"),
        ("\x1b[2J\x9b", r"\x1b[2J\x9b"),
        ("a\nERROR: b\r\tc", r"a\nERROR: b\r\tc"),
        ("\u202e\u2028\u2066\ufeff\U000e0041", r"\u202e\u2028\u2066\ufeff\U000e0041"),
        ("\udcff\x00\x7f", r"\udcff\x00\x7f"),
        (Path("a\x1b/b"), r"a\x1b/b"),
        (b"a\xff\x1b", r"a\xff\x1b"),
        (17, "17"),
        (None, "None"),
        (True, "True"),
        ([1], "list"),
    ],
)
def test_text_is_shown_as_a_terminal_can_show_it(text: object, shown: str) -> None:
    assert printable(text) == shown


def test_what_is_long_is_cut_in_the_middle() -> None:
    assert printable("a" * 200) == "a" * 200
    assert printable("a" * 901 + "b" * 99, 100) == f"{'a' * 50}... (900 characters left out) ...{'b' * 50}"
    lines = r"\n" * 25
    assert printable("\n" * 1000, 100) == f"{lines}... (950 characters left out) ...{lines}"
    assert printable("ab" * 30 + "\x1b", 61) == f"{'ab' * 15}... (4 characters left out) ...{'ab' * 13}\\x1b"
    assert printable(10**10_000) == "an integer of 33,220 bits"
    assert printable(b"a" * 1000) == "1,000 bytes"


class Hostile:
    def __str__(self) -> str:
        raise AssertionError

    __repr__ = __str__


class HostileText(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise AssertionError

    __repr__ = __len__ = __iter__ = __getitem__ = __str__  # type: ignore[assignment]


def test_nothing_of_what_is_shown_is_run() -> None:
    doubled: object = ()
    for _ in range(100):
        doubled = (doubled, doubled)
    assert printable(doubled) == "tuple"
    assert printable(Hostile()) == "Hostile"
    assert printable(HostileText("a\n")) == r"a\n"


@given(st.text(st.characters(exclude_categories=[]), max_size=50), st.integers(2, 60))
def test_whatever_it_is_it_is_one_printable_line(text: str, most: int) -> None:
    shown = printable(text, most)
    assert shown.isprintable()
    assert len(shown) <= most + len("... (50 characters left out) ...")
