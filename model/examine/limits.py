"""Limits of what a reader takes, in time and in memory, for the bytes that a file has.

A reader takes steps, and bytes of memory, in proportion to its file. What would take more is refused before it is made.
"""

from dataclasses import dataclass

from model.examine.zip_directory import MalformedFile

# Memory for each byte of a file: a checkpoint is mostly values, which no reader here reads.
MOST_TIMES = 4
# And for the smallest: torch takes 3 kB to describe a tensor, if of no more than 4 bytes, and about as much as this to
# be imported.
MOST_BEYOND_BYTES = 256 * 2**20

# Memory for what such a byte begins or ends in JSON, in bytes: an object, a list, an item of either, a string.
_JSON_PARTS = {b"{": 420, b"[": 112, b",": 40, b":": 80, b'"': 28}

# Of a tensor: torch's own loops take no more.
MOST_DIMENSIONS = 64
# Sizes, strides and places are less: of 64 bits with a sign.
END_OF_INT64 = 2**63
# In one index: the largest models have some hundred.
MOST_FILES = 10_000


@dataclass
class ReadAllowance:
    """Memory that reading a file may still take, by an estimate from above."""

    left: int

    @classmethod
    def of(cls, file_bytes: int) -> "ReadAllowance":
        return cls(MOST_TIMES * file_bytes + MOST_BEYOND_BYTES)

    def take(self, count: int) -> None:
        """So many bytes less. Raises `MalformedFile` where there is no such room."""
        self.left -= count
        if self.left < 0:
            raise MalformedFile(
                f"takes more memory to read than {MOST_TIMES} times its size and {MOST_BEYOND_BYTES // 2**20} MiB: "
                "save the state dict of the model by itself"
            )


def are_counts(values: object, most: int = END_OF_INT64) -> bool:
    """Return whether these are sizes, strides or places of a tensor: integers from 0 to below `most`."""
    return isinstance(values, list | tuple) and all(type(value) is int and 0 <= value < most for value in values)


def elements(shape: list[int] | tuple[int, ...], most: int) -> int | None:
    """The elements of a tensor; None: they, or its strides, are more than `most`."""
    count = 1
    for size in shape:
        count *= size or 1
        if count > most:
            return None
    return count if all(shape) else 0


def json_bytes(content: bytes) -> int:
    """Memory that JSON takes as text and as values, in bytes, estimated from above."""
    parts = sum(count * content.count(sign) for sign, count in _JSON_PARTS.items())
    # Of text with one character of four bytes, all have as many.
    return parts + len(content) * (2 if content.isascii() else 8)
