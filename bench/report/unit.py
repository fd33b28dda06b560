"""The unit of bytes that all figures of a table share, so that they can be compared."""

from collections.abc import Sequence

from bench.record.formats import GIB, MIB, Unit
from bench.report.rows import Row

# A model, or a rank's share of one, that takes less of a GiB has too few digits. Shares differ by the number of ranks.
FEW_GIB, FEW_GIB_OF_SHARE = 0.5, 0.1


def unit(table: Sequence[Row]) -> Unit:
    """Return the unit in which the smallest model of a table, or the smallest share of a rank, has digits."""
    few = FEW_GIB_OF_SHARE if any(row.key.parallelism for row in table) else FEW_GIB
    sizes = [row.record.share_bytes or row.record.state_bytes for row in table]
    return MIB if min(filter(None, sizes), default=GIB.size) < few * GIB.size else GIB
