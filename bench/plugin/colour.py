"""Colours of verdicts in a terminal."""

import re
from collections.abc import Mapping

import pytest

RIGHT = {"green": True}
BETTER = {"green": True, "bold": True}
UNTOLD = {"yellow": True}
WRONG = {"red": True, "bold": True}

#   word, and how it is marked
WORDS: Mapping[str, Mapping[str, bool]] = {
    # of a test, or of a cell of the conformance table
    "ok": RIGHT,
    "fits": RIGHT,
    "too big": UNTOLD,
    "skipped": UNTOLD,
    "refused": UNTOLD,
    "FAILED": WRONG,
    "WRONG": WRONG,
    "DIED": WRONG,
    "tolerated": RIGHT,
    "WARNING": UNTOLD,
    # of a figure beside history
    "GREW": WRONG,
    "SLOWER": WRONG,
    "GONE": WRONG,
    "busy": UNTOLD,
    "shrank": BETTER,
    "faster": BETTER,
    # of a figure beside another side's
    "grew": WRONG,
    "slower": WRONG,
    "same": RIGHT,
    "undecided": UNTOLD,
    # of a whole run
    "Least memory": BETTER,
    "Fastest on this CPU": BETTER,
    "Fastest on this GPU": BETTER,
    "GAIN": BETTER,
    "ACCEPTED": UNTOLD,
    "NOT ACCEPTED": WRONG,
    "REGRESSION": WRONG,
    "VANISHED": WRONG,
    "NOT COMPARED": UNTOLD,
    "NOT JUDGED": UNTOLD,
    "PASSED OVER": UNTOLD,
}

# A verdict is a whole cell of a table, or stands before a colon. In a sentence, "nothing is slower" is good news.
_VERDICT = re.compile(rf"(?:^|(?<=  )|(?<=\| )|(?<=: ))({'|'.join(WORDS)})(?=$|  | \||: )")

# Code and models are quoted as they are.
_QUOTED = "    "


def parts(line: str) -> list[tuple[str, Mapping[str, bool]]]:
    """A line in pieces, and how each one is marked."""
    pieces = [line] if line.startswith(_QUOTED) else _VERDICT.split(line)
    return [(piece, WORDS[piece] if place % 2 else {}) for place, piece in enumerate(pieces) if piece]


def write_coloured(reporter: pytest.TerminalReporter, line: str) -> None:
    """Write a line whose verdicts have their colours where pytest's own have."""
    markup = reporter.config.get_terminal_writer().markup
    reporter.write_line("".join(markup(piece, **how) for piece, how in parts(line)))
