"""Identity of a row in a table of results: which load it is of, as data; its name is written last."""

from typing import NamedTuple


class RowKey(NamedTuple):
    """A strategy and the size that it loads, or the `roofline` of that size: what the machine does at best.

    `strategy` is the kind of a roofline there. Many processes divide the model by `parallelism` among their `ranks`;
    one process has the parallelism "".
    """

    strategy: str
    size: str
    parallelism: str = ""
    ranks: int = 1
    roofline: bool = False

    @property
    def division(self) -> tuple[int, str]:
        """The ranks and their parallelism: rows with an equal one are compared."""
        return self.ranks, self.parallelism

    @property
    def label(self) -> str:
        """The name without the division: `limit: memory` of a roofline."""
        return f"limit: {self.strategy}" if self.roofline else self.strategy

    @property
    def name(self) -> str:
        """The name in a table without a column for the division: `streamed fsdp x8`."""
        return f"{self.label} {self.parallelism} x{self.ranks}" if self.parallelism else self.label

    @property
    def title(self) -> str:
        """The name with the size: `streamed fsdp x8-small`."""
        return f"{self.name}-{self.size}"
