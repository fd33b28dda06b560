"""The texts of messages in the source: strings of several words that are raised, returned, or in a table."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

# Fewer are no sentence.
FEWEST_SPACES = 3


def patterns(file: Path) -> Iterator[tuple[str, re.Pattern[str]]]:
    """Yield each text of a file, as it is written, and the pattern of the messages that are made of it."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    stated = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    said = [node for node in ast.walk(tree) if isinstance(node, ast.Raise | ast.Return)]
    found: dict[str, list[str]] = {}
    for statement in [*stated, *said]:
        for node in _outermost_texts(statement):
            found[ast.unparse(node)] = _literals(node)
    for text, literals in found.items():
        if sum(part.count(" ") for part in literals) >= FEWEST_SPACES:
            yield text, re.compile(".*".join(map(re.escape, literals)))


def _outermost_texts(node: ast.AST) -> Iterator[ast.Constant | ast.JoinedStr]:
    if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
        yield node
        return
    for child in ast.iter_child_nodes(node):
        yield from _outermost_texts(child)


def _literals(node: ast.Constant | ast.JoinedStr) -> list[str]:
    """Return the parts of a text between its values."""
    if isinstance(node, ast.Constant):
        return str(node.value).split("{}")
    parts = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
    return [str(part) for part in parts if part is not None]
