"""Limits of a reader's time and memory, in proportion to the size of the file.

Content that would take more is refused before it is read.
"""

from dataclasses import dataclass

from model.examine.zip_directory import MalformedFile

# Memory for each byte of a file: a checkpoint is mostly values, which no reader here reads.
MOST_TIMES = 4
# In addition, for the smallest files: torch takes 3 kB to describe a tensor of 4 bytes, and about this much for its
# import.
MOST_BEYOND_BYTES = 256 * 2**20

# Memory in bytes for each such character of JSON: it begins an object or a list, or separates items, or ends a string.
_JSON_PARTS = {b"{": 420, b"[": 112, b",": 40, b":": 80, b'"': 28}

# Dimensions of a tensor: those that torch itself takes.
MOST_DIMENSIONS = 64
# Sizes, strides and offsets are below: signed 64 bits.
END_OF_INT64 = 2**63
# Files of one index: the largest models have some hundred.
MOST_FILES = 10_000


@dataclass
class ReadAllowance:
    """Memory in bytes that reading a file may still take, by an upper estimate."""

    left: int

    @classmethod
    def of(cls, file_bytes: int) -> "ReadAllowance":
        return cls(MOST_TIMES * file_bytes + MOST_BEYOND_BYTES)

    def take(self, count: int) -> None:
        """Take `count` bytes. Raises `MalformedFile` if fewer are left."""
        self.left -= count
        if self.left < 0:
            raise MalformedFile(
                f"takes more memory to read than {MOST_TIMES} times its size and {MOST_BEYOND_BYTES // 2**20} MiB: "
                "save the state dict of the model by itself"
            )


def are_counts(values: object, most: int = END_OF_INT64) -> bool:
    """Return whether these are sizes, strides or offsets of a tensor: integers from 0 to below `most`."""
    return isinstance(values, list | tuple) and all(type(value) is int and 0 <= value < most for value in values)


def elements(shape: list[int] | tuple[int, ...], most: int) -> int | None:
    """Return the number of elements of a tensor; None if it, or a stride, exceeds `most`."""
    count = 1
    for size in shape:
        count *= size or 1
        if count > most:
            return None
    return count if all(shape) else 0


def json_bytes(content: bytes) -> int:
    """Return an upper estimate of the memory that JSON takes as text and as values, in bytes."""
    parts = sum(count * content.count(sign) for sign, count in _JSON_PARTS.items())
    # In a text with one wide character, all take four bytes.
    return parts + len(content) * (2 if content.isascii() else 8)
