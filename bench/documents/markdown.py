"""Reads Markdown documents: their commands, code, links and headings."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def documents() -> dict[str, str]:
    """Read every document of the checkout, by its path from the root."""
    patterns = ("README.md", ".github/**/*.md", ".ci/**/*.md", "bench/**/*.md", "model/**/*.md", "results/**/*.md")
    files = sorted(file for pattern in patterns for file in ROOT.glob(pattern))
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


def code(text: str, language: str) -> list[str]:
    """Return the fenced code blocks of one language."""
    return [match["code"] for match in _FENCE.finditer(text) if match["language"] == language]


def commands(text: str) -> list[str]:
    """Return the commands of the `sh` blocks, each on one line."""
    return [line for block in code(text, "sh") for line in re.sub(r" *\\\n *", " ", block).splitlines()]


def languages(text: str) -> set[str]:
    """Return the languages of all fenced code blocks, however their fences are written; "" for none."""
    return set(re.findall(r"^ *(?:```|~~~)+ *([^`\n]*)\n(?:.*?\n)?? *(?:```|~~~)+ *$", text, re.MULTILINE | re.DOTALL))


def prose(text: str) -> str:
    """Return a document without its fenced code blocks."""
    return _FENCE.sub("", text)


def inline_code(text: str) -> list[str]:
    """Return what stands between single backticks."""
    return [re.sub(r"\s+", " ", found) for found in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(text))]


def links(text: str) -> list[str]:
    """Return the targets of links and images."""
    return re.findall(r"\]\(([^)\s]+)[^)]*\)", re.sub(r"`[^`]*`", "", prose(text)))


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings."""
    headings = re.findall(r"^#+ +(.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


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
