"""Reads Markdown documents: their commands, code, links and headings."""

import re
import shlex
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3]

# Where documents are, if git does not say.
_PATTERNS = ("README.md", ".github/**/*.md", "bench/**/*.md", "model/**/*.md", "results/**/*.md")

_FENCE = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@cache
def documents() -> dict[str, str]:
    """Read every document that git knows, by its path from the root."""
    listed = subprocess.run(  # noqa: S603
        ("git", "-C", str(ROOT), "ls-files", "-z", "*.md"),  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    names = [name for name in listed.stdout.split("\0") if name]
    if listed.returncode:
        names = [file.relative_to(ROOT).as_posix() for pattern in _PATTERNS for file in ROOT.glob(pattern)]
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in sorted(names)}


def code(text: str, language: str) -> list[str]:
    """Return the fenced code blocks of one language."""
    return [match["code"] for match in _FENCE.finditer(text) if match["language"] == language]


def commands(text: str) -> list[str]:
    """Return the commands of the `sh` blocks, each on one line."""
    lines = [line for block in code(text, "sh") for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def prose(text: str) -> str:
    """Return a document without its fenced code blocks and comments."""
    return re.sub(r"<!--.*?-->", "", _FENCE.sub("", text), flags=re.DOTALL)


def inline_code(text: str) -> list[str]:
    """Return what stands between backticks."""
    return [re.sub(r"\s+", " ", found) for _, found in re.findall(r"(?<!`)(`+)([^`]+)\1(?!`)", prose(text))]


def links(text: str) -> list[str]:
    """Return the targets of links and images."""
    spared = re.sub(r"`[^`]*`", "", prose(text))
    return re.findall(r"\]\(\s*<?([^)\s>]+)>?(?:\s+[\"'(][^)]*)?\)", spared)


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings."""
    headings = re.findall(r"^#+ +(.+?)[ #]*$", prose(text), re.MULTILINE)
    shown = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    slugs = [re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in shown]
    seen: Counter[str] = Counter()
    found = set()
    for slug in slugs:
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def tables(text: str, heading: str) -> list[list[list[str]]]:
    """Return the tables whose first heading is this one: rows of cells, the headings first, without outer backticks."""
    blocks = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    rows = [
        [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in block.splitlines()] for block in blocks
    ]
    return [[headings, *body] for headings, _, *body in rows if headings[0] == heading]


def documented(command: str) -> list[str]:
    """Split a command that a document shows into its words. A test that calls this runs the command.

    Raises `LookupError` if no document shows the command.
    """
    if not any(command in commands(text) for text in documents().values()):
        raise LookupError(f"no document shows the command {command!r}")
    return shlex.split(command)


def documented_options(command: str) -> list[str]:
    """Return what follows `pytest bench` in a command that a document shows. Raises as `documented` does."""
    words = documented(command)
    assert words[:2] == ["pytest", "bench"]
    return words[2:]


def snippets(document: str) -> list[str]:
    """Return the Python code of a document. A test that calls this runs the code."""
    return code(documents()[document], "python")
