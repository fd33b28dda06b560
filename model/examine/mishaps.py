"""Files in place of a checkpoint (a git-lfs pointer, a web page), recognised by their first bytes."""

import re

# Bytes that are read.
FIRST_BYTES = 256

# Characters of a text in a message.
LONGEST_LINE = 60

# Bytes of the shortest checkpoint.
_SHORTEST_BYTES = 9

AGAIN = "download or copy it again"
ITSELF = "download the file itself"

_MISHAPS = {
    rb"version https://git-lfs\.github\.com/": "is a git-lfs pointer, not the file: run git lfs pull",
    rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html|head|body)\b": f"is a web page, not a checkpoint: {ITSELF}",
    rb"(\xef\xbb\xbf)?\s*<[?!a-z]": f"is XML, as a server sends to tell an error, not a checkpoint: {ITSELF}",
    rb"\x1f\x8b": "is compressed by gzip: unpack it",
    rb"GGUF": "is a GGUF file, which torch does not load: name a .safetensors file, or one of torch.save",
    rb"\x89HDF\r\n": "is an HDF5 file, which torch does not load: name a .safetensors file, or one of torch.save",
}
_MISHAPS_BY_PATTERN = {re.compile(pattern, re.IGNORECASE): text for pattern, text in _MISHAPS.items()}


def mishap(first: bytes) -> str | None:
    """Return what a file with these first bytes is, in words that follow its name, and the remedy.

    None: it may be a checkpoint. `first` is the whole file if it is shorter than `FIRST_BYTES`.
    """
    if not first:
        return f"is empty: {AGAIN}"
    if is_safetensors(first):
        return None
    for pattern, text in _MISHAPS_BY_PATTERN.items():
        if pattern.match(first):
            return text
    if _is_text(first):
        line = first.decode(errors="ignore").strip().partition("\n")[0].strip()[:LONGEST_LINE]
        return f"is text that begins with {line!r}, not a checkpoint: {ITSELF}"
    if len(first) < _SHORTEST_BYTES:
        return f"is cut off at {len(first)} bytes, fewer than any checkpoint has: {AGAIN}"
    return None


def is_safetensors(first: bytes) -> bool:
    """Return whether a length of at most 100 MB, the format's limit, comes first, and then a header."""
    return first[4:9] == b"\0\0\0\0{"


def _is_text(first: bytes) -> bool:
    """Return whether all characters are printable; the last one may be cut."""
    text = first.decode(errors="ignore")
    return len(text.encode()) > len(first) - 4 and all(one.isprintable() or one in "\t\r\n" for one in text)
