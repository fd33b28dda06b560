"""What is compared between runs: every figure of a record that says how much a load takes."""

from dataclasses import dataclass

from model.byte_sizes import binary_size

# What a look at the host's memory may miss or add, and what Python's own objects take differently in each run: with
# tiny models up to 0.6 MiB were seen, with larger ones up to 2 MB.
HOST_SLACK_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Figure:
    """One field of a record. Figures in bytes differ by chance by `slack_bytes` at most, those in seconds always.

    `anywhere`: it is the same on every machine, whatever is installed there.
    """

    name: str
    anywhere: bool = False
    slack_bytes: int = 0

    @property
    def timed(self) -> bool:
        """Whether it is in seconds."""
        return self.name.endswith("_seconds")

    def slack(self, *, planned: bool) -> int:
        """Bytes that tell nothing: none where nothing was real, and tensors were counted."""
        return 0 if planned else self.slack_bytes


FIGURES = (
    Figure("state_bytes", anywhere=True),
    Figure("largest_tensor_bytes", anywhere=True),
    Figure("device_requested_peak_bytes", anywhere=True),
    Figure("device_allocated_peak_bytes"),
    Figure("device_reserved_peak_bytes"),
    Figure("host_pinned_peak_bytes"),
    Figure("host_private_peak_bytes", slack_bytes=HOST_SLACK_BYTES),
    Figure("host_file_peak_bytes", slack_bytes=HOST_SLACK_BYTES),
    Figure("host_total_peak_bytes", slack_bytes=HOST_SLACK_BYTES),
    Figure("load_seconds"),
    Figure("first_logits_seconds"),
)
BYTES = tuple(figure for figure in FIGURES if not figure.timed)
SECONDS = tuple(figure for figure in FIGURES if figure.timed)

# What is measured right before every timed load, and is nothing that a strategy can change.
LIMIT = Figure("limit_bytes_per_second")


def title(name: str) -> str:
    """What people call a figure."""
    return name.removesuffix("_bytes").removesuffix("_seconds").replace("_", " ")


def shown(name: str, value: float | None) -> str:
    """A figure with its unit, in four digits or so: differences of a percent are to be seen."""
    if value is None:
        return "-"
    if name.endswith("_seconds"):
        return f"{value:.3f} s"
    return binary_size(value, 3, few=0.1)
