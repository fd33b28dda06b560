"""The record of one benchmark: what pytest-benchmark's JSON holds under `extra_info`.

Every field is declared once, in `Record`: its type, what it means, the kind of its value in JSON, how runs are compared
by it, and the column that shows it. Columns stand in a table in the order of their fields. Tables, pages, comparisons,
`results/README.md` and the reader of recorded runs follow. See `Field`.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bench.record.field import (
    DEVICE,
    HOST,
    HOST_SLACK_BYTES,
    Column,
    Compared,
    Field,
    Peak,
    declared,
    number,
    peak,
    positive,
    signed,
    text,
)
from bench.record.formats import (
    as_amount,
    as_count,
    as_gigabytes,
    as_number,
    as_page_faults,
    as_ratio,
    as_text,
    bound_in_unit,
    bound_of,
    in_unit,
    multiple_of,
    of_share,
)
from bench.record.kinds import COUNT, FLAG, NUMBER, PLAIN, TEXT, each, fields, nullable, of_equal_lengths
from bench.record.row_key import RowKey

SCHEMA = 1

# Values of fields, by their names.
Fields = dict[str, Any]

_SERIES = nullable(of_equal_lengths({"seconds": NUMBER, "bytes": NUMBER}))
_ALLOCATION = fields({"bytes": NUMBER, "tensors": NUMBER, "line": TEXT, "code": TEXT})
_SAVED_WITH = fields(
    {
        "ranks": COUNT,
        "async": FLAG,
        "dedup_save_to_lowest_rank": FLAG,
        "thread_count": COUNT,
        "single_file_per_rank": FLAG,
    }
)
_PEER = fields(
    {"versions": fields({}, rest=nullable(TEXT)), "backend": nullable(TEXT)}
    | dict.fromkeys(("settings", "destination", "formats", "devices"), TEXT)
)
_TIMELINE = fields(
    {"moments": fields({}, rest=NUMBER)},
    dict.fromkeys(("device_requested_bytes", "host_private_bytes", "host_file_bytes", "host_pinned_bytes"), _SERIES),
)

OF_STATE = multiple_of("state_bytes")

# Of columns.
OF_MODEL = "the figure to its left, as a multiple of the model's bytes"
THEORY = "what theory predicts for the figure to its left; another figure fails"


@dataclass(kw_only=True)
class Record:
    """The record of one benchmark. Bytes are integers, seconds and ratios floats; what was not measured is None.

    A peak-memory benchmark fills in the peaks, a load-time benchmark the seconds.
    """

    schema: int = declared("version of these fields: 1", COUNT, default=SCHEMA, key=True)

    strategy: str | None = text("the strategy, or the name of your loader", key=True)
    loader: str | None = text(
        "the function of your loader, `file.py:function` without folders; `strategy` has its name",
        key=True,
    )
    model: str | None = text(
        "the function that built your model, `file.py:function` without folders, or `NAME/config.json` of a Hugging "
        "Face folder; `size` has the name of the function or the folder",
        key=True,
    )
    state_digest: str | None = text(
        "SHA-256 of the names, dtypes, shapes and ties of your model's state dict, and of the names that its "
        "checkpoint lacks",
        key=True,
    )
    size: str | None = text("the GPT-2 size, or the name of your model", key=True)
    layout: str | None = text("the layout of the checkpoint on disk, such as `torch` or `safetensors`", key=True)
    asked_layout: str | None = text("the layout that `--layout` asked for", key=True)
    saved_with: dict[str, Any] | None = declared(
        "for a checkpoint of torch.distributed.checkpoint: the number of `ranks` that saved it, whether `async`, "
        "and its settings `dedup_save_to_lowest_rank`, `thread_count` and `single_file_per_rank`",
        nullable(_SAVED_WITH),
    )
    dtype: str = declared("the dtype of the checkpoint", TEXT, default="", key=True)
    cast: str | None = text("the dtype that floating-point weights were cast to", key=True)
    device: str | None = text("where the weights were loaded to; `sim` is simulated CUDA", key=True)
    stand_in: str | None = text(
        "the memory of each device if `cuda` was a stand-in for a GPU, such as `80 GiB`",
        key=True,
    )
    planned: bool | None = declared(
        "whether the load was planned; if so, host figures are the requested sizes of tensors", nullable(FLAG), key=True
    )
    cache: str = declared("the state of the page cache before the load: `warm` or `cold`", TEXT, default="", key=True)
    ownership: str | None = text(
        "`owned`: the model owns the memory of its weights; `mapped`: its weights are pages of the checkpoint"
    )
    first_use: str | None = text(
        "`logits`, or `weights` if your model has no example input and each weight was read once instead", key=True
    )
    peer: dict[str, Any] | None = declared(
        "for a loader of another project: the `versions` of its packages, its `settings`, its `backend`, the "
        "`destination` it loads into, its `formats` and `devices`",
        nullable(_PEER),
        key=True,
    )
    parallelism: str | None = text(
        "for sharded loads: how the model is divided, `fsdp` or `tensor`",
        key=True,
        sharded=(Column("split", "parallelism", as_text),),
    )
    blocks: str | None = text(
        "for sharded loads of your model, or with `--wrap`: the blocks that FSDP2 shards one by one, such as "
        "`LlamaDecoderLayer x 80`",
        key=True,
    )
    ranks: int | None = declared(
        "for sharded loads: the number of processes. Peaks, bounds and `retained_bytes` are the highest of any "
        "rank, times those of the slowest rank",
        nullable(COUNT),
        key=True,
        sharded=(Column("ranks", "ranks", as_count),),
    )
    ranks_per_node: int | None = declared(
        "the number of processes that share the host memory of a node",
        nullable(COUNT),
        key=True,
    )

    # The terms of bounds.
    state_bytes: int = number(
        "S: the size of the state dict, shared memory counted once",
        default=0,
        compared=Compared(anywhere=True, of_model=True),
    )
    largest_tensor_bytes: int = number(
        "L: the size of the largest tensor in the state dict",
        default=0,
        compared=Compared(anywhere=True, of_model=True),
    )
    largest_file_bytes: int | None = number("F: the size of the tensors in the largest file of the checkpoint")
    tensors: int = number("the number of tensors in the state dict, shared memory counted once", default=0)
    checkpoint_bytes: int | None = number(
        "C: the size of the tensors in the checkpoint; equals S without a cast, if no tensor is missing"
    )
    missing_bytes: int | None = number("M: the size of the tensors of the model that the checkpoint lacks")
    largest_saved_bytes: int | None = number(
        "K: the size of the largest tensor in the checkpoint; equals L without a cast, if no tensor is missing"
    )
    converted_bytes: int | None = number("X: the size of the tensors that a cast converts, before the cast")
    converted_to_bytes: int | None = number("Y: the size of the same tensors after the cast")
    mapped_bytes: int | None = number(
        "W: the most bytes of files mapped at the same time, if a file is unmapped once all of it is converted"
    )
    largest_converted_to_bytes: int | None = number("V: the size of the largest converted tensor after the cast")
    largest_conversion_bytes: int | None = number("P: the largest sum of one tensor's sizes before and after the cast")
    conversion_slot_bytes: int | None = number(
        "D: the buffer that `streamed` converts in; on a device without `beside_bytes`"
    )
    build_peak_bytes: int | None = signed(
        "for your model, and with `cast`: the peak of host memory while the model is built and cast, for strategies "
        "that build it"
    )
    built_private_bytes: int | None = signed(
        "for your model: the private host memory that stays after the model was built and deleted; for strategies "
        "with a skeleton also the memory to build that"
    )
    built_file_bytes: int | None = signed("the same for file-backed host memory")
    beside_bytes: int | None = signed(
        "B: the size of the buffers that no state dict holds, for strategies that build the model"
    )

    # Budgets.
    device_budget_bytes: int | None = number(
        "the budget of device memory; for sharded loads that of each rank", key=True
    )
    host_budget_bytes: int | None = number("the budget of host memory; for sharded loads that of a node", key=True)
    fits: bool | None = declared("whether the load finished within its budgets", nullable(FLAG))
    fate: str | None = text("how the load ended if it did not finish within its budgets")
    smallest_device_bytes: int | None = number(
        "the smallest device budget that the load finished with (`--find-minimum`), by bisection",
        column=Column(
            "least GPU",
            "least GPU",
            as_amount,
            about="the least GPU memory that the load works with (`--find-minimum`)",
        ),
    )
    smallest_host_bytes: int | None = number(
        "the smallest host budget that the load finished with (`--find-minimum`), by bisection",
        column=Column(
            "least RAM",
            "least RAM",
            as_amount,
            about="the least host memory that the load works with (`--find-minimum`)",
        ),
    )
    smallest_tolerance_bytes: int | None = number("the tolerance of both: they may be too large by this much", key=True)

    # Peaks.
    device_requested_peak_bytes: int | None = peak(
        Peak(DEVICE, "requested", "device_peak_ratio", "device_bound_ratio", "device_requested_bytes", exact=True),
        "the peak of the memory that live tensors requested, until the load returned",
        charted=True,
        compared=Compared(anywhere=True, simulated=0.0),
        column=Column(
            "GPU {unit}",
            "GPU {unit}",
            in_unit,
            about="peak of the GPU memory that live tensors asked for while the model loads, in GiB, or in MiB for "
            "small models; `!`: a GPU with `--device-memory` is too small",
            budget="device_budget_bytes",
        ),
        sharded=(Column("GPU {unit}", "GPU {unit}, worst rank", in_unit, budget="device_budget_bytes"),),
    )
    device_peak_ratio: float | None = number(
        "the requested peak over S",
        column=Column("x model", "GPU x model", as_ratio, 2, about=OF_MODEL),
    )
    device_bound_ratio: float | None = number(
        "the bound of the requested peak over S",
        column=Column("theory", "GPU theory", bound_of("device_requested_peak_bytes"), 4, about=THEORY),
        sharded=(Column("theory", "GPU theory, {unit}", bound_in_unit("device_requested_peak_bytes"), 5),),
    )
    share_bytes: int | None = number(
        "S/N: the bytes that a rank holds after the load; the most of any rank",
        sharded=(Column("x share", "GPU x share", of_share("device_requested_peak_bytes"), 1),),
    )
    # What the allocator makes of the same requests differs a little by version.
    device_allocated_peak_bytes: int | None = peak(
        Peak(DEVICE, "allocated"),
        "the peak of the blocks that the allocator handed out",
        compared=Compared(simulated=0.005),
        column=Column(
            "allocated",
            "allocated",
            OF_STATE,
            12,
            about="peak of the blocks that PyTorch's caching allocator handed out, as a multiple of the model's bytes",
        ),
    )
    device_reserved_peak_bytes: int | None = peak(
        Peak(DEVICE, "reserved"),
        "the peak of the segments that the allocator took from the driver",
        compared=Compared(simulated=0.02),
        column=Column(
            "reserved",
            "reserved",
            OF_STATE,
            7,
            about="peak of the segments that the caching allocator took from the driver: what a GPU has to have",
        ),
        sharded=(Column("reserved", "reserved {unit}", in_unit, 9),),
    )
    device_driver_peak_bytes: int | None = signed(
        "the peak that the driver reports, above the level before the load; it includes other allocators and other "
        "processes",
        of_a_rank=True,
        highest=True,
    )
    host_pinned_peak_bytes: int | None = peak(
        Peak(HOST, "pinned", timeline="host_pinned_bytes", exact=True),
        "the peak of page-locked host memory",
        compared=Compared(),
    )
    host_private_peak_bytes: int | None = peak(
        Peak(HOST, "private", "host_peak_ratio", "host_bound_ratio", "host_private_bytes"),
        "the peak of anonymous and shared memory, which the kernel cannot take back, above the level before the load; "
        "it includes processes that the load starts",
        charted=True,
        compared=Compared(slack_bytes=HOST_SLACK_BYTES),
        column=Column(
            "RAM {unit}",
            "RAM {unit}",
            in_unit,
            about="peak of the host memory that the kernel cannot take back; `!`: a host with "
            "`--host-memory` is too small",
            budget="host_budget_bytes",
        ),
        sharded=(Column("RAM {unit}", "RAM {unit}, worst rank", in_unit, 2),),
    )
    host_peak_ratio: float | None = number(
        "the private peak over S",
        column=Column("x model", "RAM x model", as_ratio, 6, about=OF_MODEL),
    )
    host_bound_ratio: float | None = number(
        "the bound of the private peak over S",
        column=Column("theory", "RAM theory", bound_of("host_private_peak_bytes"), 8, about=THEORY),
        sharded=(Column("theory", "RAM theory, {unit}", bound_in_unit("host_private_peak_bytes"), 8),),
    )
    host_file_peak_bytes: int | None = peak(
        Peak(HOST, "file-backed", bound="host_file_bound_ratio", timeline="host_file_bytes"),
        "the peak of resident pages of mapped files, above the level before the load",
        compared=Compared(slack_bytes=HOST_SLACK_BYTES),
        column=Column(
            "mapped",
            "mapped",
            OF_STATE,
            9,
            about="peak of mapped pages of the checkpoint; the kernel takes them back when memory is short",
        ),
    )
    host_file_bound_ratio: float | None = number(
        "the bound of file-backed memory over S",
        column=Column("theory", "mapped theory", bound_of("host_file_peak_bytes"), 13, about=THEORY),
    )
    host_total_peak_bytes: int | None = number(
        "the kernel's high-water mark of private and file-backed memory together, above the level before the load",
        compared=Compared(slack_bytes=HOST_SLACK_BYTES),
        of_a_rank=True,
        highest=True,
    )
    node_private_peak_bytes: int | None = number(
        "the sum of private peaks over the ranks of the node with the highest sum",
        sharded=(Column("node {unit}", "RAM {unit}, node", in_unit, budget="host_budget_bytes"),),
    )
    node_file_peak_bytes: int | None = number(
        "the same for file-backed peaks; a page that several ranks map counts once for each",
        sharded=(Column("mapped {unit}", "mapped {unit}, node", in_unit, 6),),
    )
    read_bytes: int | None = signed(
        "the bytes that all ranks together read from files, mapped pages included",
        of_a_rank=True,
        sharded=(Column("read", "read by all", OF_STATE),),
    )

    # Times.
    load_seconds: float | None = positive(
        "median time until the load returned",
        compared=Compared(),
        column=Column("load s", "load, s", as_number, 10, about="seconds until the load returned"),
        sharded=(Column("load s", "load, s", as_number, 3),),
    )
    first_logits_seconds: float | None = positive(
        "median time until the first logits",
        charted=True,
        compared=Compared(),
        column=Column(
            "output s",
            "first output, s",
            as_number,
            1,
            about="seconds from the start of the load until the model's first output",
        ),
        sharded=(Column("output s", "first output, s", as_number),),
    )
    forward_seconds: float | None = number("median time of a later forward pass alone")
    bytes_per_second: float | None = number(
        "the bytes in the checkpoint (S without a cast) over the median time of the load; for a mapped load this time "
        "includes what its first forward pass takes longer than a later one",
        key=True,
        column=Column(
            "load GB/s",
            "load GB/s",
            as_gigabytes,
            8,
            about="S over the time of the load; a mapped load is charged for what the first output fetches",
        ),
        sharded=(Column("load GB/s", "load GB/s", as_gigabytes, 7),),
    )
    limit: str | None = text(
        "the limit that the load is compared with: `memory`, `mapping`, `pinned` or `disk`, "
        "[see there](../bench/meters/README.md#the-limit)"
    )
    # The speed of the machine beside the load: no strategy changes it, and so it is not compared.
    limit_bytes_per_second: float | None = positive(
        "the median of that limit, measured right before every load", key=True
    )
    limit_fraction: float | None = number(
        "`bytes_per_second` over that limit",
        column=Column(
            "of max",
            "of max",
            as_number,
            3,
            about="speed of the load, divided by the fastest possible speed on this machine "
            "([limits](../meters/README.md#the-limit))",
        ),
    )

    retained_bytes: int | None = signed(
        "private host and device memory that the process still holds beside the model after the load",
        of_a_rank=True,
        highest=True,
        column=Column(
            "left over",
            "left over",
            OF_STATE,
            14,
            about="what the process still holds beside the model, after one load",
        ),
    )
    retained_again_bytes: int | None = signed(
        "the same after a second load, for loaders that are not the suite's own",
        column=Column(
            "left over twice",
            "left over after a second load",
            OF_STATE,
            14,
            about="what the process still holds beside the model, after a second load",
        ),
    )
    minor_faults: int | None = number(
        "page faults until the first logits that read nothing; for timed loads the median",
        of_a_rank=True,
        column=Column("page faults", "page faults", as_page_faults, 11, about="page faults until the first output"),
    )
    major_faults: int | None = number(
        "page faults until the first logits that read from the disk; for timed loads the median", of_a_rank=True
    )

    per_rank: list[dict[str, Any]] | None = declared(
        "for each `rank` its peaks, `share_bytes`, `read_bytes` and page faults, or its `load_seconds`; in a plan "
        "one entry for each group of ranks that are `alike`",
        nullable(each(fields({}, rest=PLAIN))),
    )
    alive_at_peak: dict[str, list[dict[str, Any]]] | None = declared(
        "for each peak the bytes and the number of live tensors, by the line of code that allocated them. Always "
        "known on `sim` and in a plan, otherwise with `--explain` or for a peak that grew or broke its bound. For "
        "sharded loads that of rank 0",
        nullable(fields({}, rest=each(_ALLOCATION))),
        drawn=True,
    )
    timeline: dict[str, Any] | None = declared(
        "the memory of the load over time, [see below](#timeline); for sharded loads that of rank 0",
        nullable(_TIMELINE),
        drawn=True,
    )

    @classmethod
    def read(cls, known: Mapping[str, Any]) -> "Record":
        """Make a record of recorded fields; unknown ones are ignored, and those that are not there are None."""
        record = cls.__new__(cls)
        if not (known.keys() <= FIELDS.keys()) or None in known.values():
            known = {name: value for name, value in known.items() if name in FIELDS and value is not None}
        # A thousand runs have tens of thousands of records: what is not there is the default of the class.
        record.__dict__.update(known)
        return record

    def value(self, name: str) -> Any:
        """Return the value of the field of this name; None if it is not known."""
        value = getattr(self, name)
        return None if name in _BLANK and value == _BLANK[name] else value

    def measured(self) -> dict[str, Any]:
        """Return the fields that are known, by their names."""
        return {name: value for name in FIELDS if (value := self.value(name)) is not None}

    def as_json(self) -> dict[str, Any]:
        """Return every field by its name; null are those that are not known."""
        return dict.fromkeys(FIELDS) | self.measured()

    def with_fields(self, known: Mapping[str, Any] = MappingProxyType({}), /, **more: Any) -> "Record":
        """Return a copy in which these fields have other values."""
        return dataclasses.replace(self, **{**known, **more})

    def update(self, known: Mapping[str, Any] = MappingProxyType({}), /, **more: Any) -> None:
        """Give fields their values. Raises `AttributeError` for one that there is not."""
        for name, value in {**known, **more}.items():
            if name not in FIELDS:
                raise AttributeError(f"a record has no field {name!r}")
            setattr(self, name, value)

    @property
    def row_key(self) -> RowKey:
        """The row of a table that it belongs to."""
        size = str(self.size)
        if self.ranks:
            return RowKey(str(self.strategy), size, str(self.parallelism), self.ranks)
        return RowKey(self.strategy, size) if self.strategy else RowKey(str(self.limit), size, roofline=True)


# Every field, by its name.
FIELDS: dict[str, Field] = {
    one.name: dataclasses.replace(one.metadata["field"], name=one.name) for one in dataclasses.fields(Record)
}
# What those fields hold that every load has, as long as they are not known.
_BLANK = {one.name: one.default for one in dataclasses.fields(Record) if one.default in (0, "")}

# What is compared between runs: every figure that says how much a load takes.
FIGURES = tuple(one for one in FIELDS.values() if one.compared)
BYTES = tuple(one for one in FIGURES if not one.is_seconds)
SECONDS = tuple(one for one in FIGURES if one.is_seconds)
# In the order of tables and charts: pinned memory, of which most loads take none, comes last.
PEAKS = {
    name: field.peak
    for name, field in sorted(FIELDS.items(), key=lambda one: bool(one[1].peak and one[1].peak.kind == "pinned"))
    if field.peak
}

# What is measured right before every timed load.
LIMIT = FIELDS["limit_bytes_per_second"]


def ratio(count: int | None, state_bytes: int) -> float | None:
    """Return a peak, or a bound, as a multiple of S."""
    return None if count is None else count / state_bytes
