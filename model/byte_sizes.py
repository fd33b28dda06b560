"""Sizes in bytes as text, in binary units (MiB, GiB) and in decimal ones (MB, GB)."""

KIB, MIB, GIB = 2**10, 2**20, 2**30
MB, GB = 10**6, 10**9


def binary_size(count: float, digits: int, few: float = 1.0) -> str:
    """Return `count` in MiB below `few` GiB, and in GiB from there on, with so many digits: `3.90 GiB`."""
    return f"{count / GIB:.{digits}f} GiB" if count >= few * GIB else f"{count / MIB:.{digits}f} MiB"


def short_size(count: int) -> str:
    """Return `count` in MiB or GiB with a digit, if that is not 0: `3.9 GiB`, `4 GiB`, `512 MiB`."""
    return binary_size(count, 1).replace(".0 ", " ")


def fine_size(count: int) -> str:
    """Return `count` as `short_size`, but in KiB or bytes where it is less than a MiB: `320 KiB`, `96 bytes`."""
    if count >= MIB:
        return short_size(count)
    return f"{count / KIB:.1f} KiB".replace(".0 ", " ") if count >= KIB else f"{count} bytes"


def decimal_size(count: int) -> str:
    """Return `count` in MB below a GB, and in GB from there on: `1.3 GB`, `139.1 MB`."""
    return f"{count / GB:.1f} GB" if count >= GB else f"{count / MB:.1f} MB"


def megabytes(count: int) -> str:
    """Return `count` in MB: `1,304.2 MB`."""
    return f"{count / MB:,.1f} MB"


def gigabytes(count: int) -> str:
    """Return `count` in GB: `1304.2 GB`."""
    return f"{count / GB:.1f} GB"
