"""Converts text of unknown origin to one printable line of limited length."""

from pathlib import PurePath

# Characters of a text that are shown, by default.
MOST_CHARACTERS = 200
# Characters of a line of the suite that are shown: a message has some hundred.
LONGEST_LINE = 10_000


def printable(text: object, most: int = MOST_CHARACTERS) -> str:
    r"""Return `text` in one line, with `\x1b`, `\n`, `\u2028`, ... for characters that are not printable.

    A text of more than `most` characters is cut in the middle, with the number of characters left out. For values other
    than texts, numbers, paths and None, the name of the type: printing a container may take more memory than there is.
    """
    text = _as_text(text, most)
    if len(text) <= most and len(escapes := "".join(map(escaped, text))) <= most:
        return escapes
    head = _beginning(text[: most // 2], most // 2)
    tail = _beginning(text[-(most // 2) :][::-1], most // 2)[::-1]
    return f"{''.join(head)}... ({len(text) - len(head) - len(tail):,} characters left out) ...{''.join(tail)}"


def escaped(character: str) -> str:
    """Return a character as it is, or as Python writes it in a string, if it is not printable."""
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _as_text(value: object, most: int) -> str:
    # Not `str()` of a subclass of a string or a number, which may run anything.
    if isinstance(value, str):
        return str.__getitem__(value, slice(None))
    if type(value) is bytes:
        return _of_bytes(value, most)
    if type(value) is int and value.bit_length() > 4 * most:
        return f"an integer of {value.bit_length():,} bits"
    if value is None or type(value) in {int, float, bool} or isinstance(value, PurePath):
        return str(value)
    return type(value).__name__


def _of_bytes(value: bytes, most: int) -> str:
    if len(value) <= most:
        return value.decode(errors="backslashreplace")
    return f"{len(value):,} bytes"


def _beginning(characters: str, most: int) -> list[str]:
    """Return the first characters, escaped, that fit in `most`."""
    escapes: list[str] = []
    taken = 0
    for character in characters:
        taken += len(escaped(character))
        if taken > most:
            break
        escapes.append(escaped(character))
    return escapes
