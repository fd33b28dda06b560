"""Terms of the bounds of a rank: the share of a model that it holds, and what a load takes beside it there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn

from bench.measure.expression import evaluate, of_rank
from bench.measure.terms import BUILT, OF_A_RANK, RING_BYTES, conversion_slot_bytes, host_slack_bytes
from bench.record.record import Record
from bench.strategies.reading.memory import ring_bytes
from model.parallel.division import Division


@dataclass(frozen=True)
class Share:
    """The terms of a bound for one rank of N, in bytes.

    S are the model's state bytes, and L those of its largest tensor. S/N is what the rank holds in the end, to the
    byte: its shards, and what every rank has whole. B is what it takes beyond that to be sent all tensors, in the order
    of the state dict: one that is divided, whole, and those before it that are not divided, a second time. U is what it
    takes beyond S/N to move what is sharded in one go to the device, whole, and to shard it there. T are the
    bytes of pages of the checkpoint that hold something of its shards, and F those of the file with the most of them.

    M are the largest two tensors, as they are saved, whose names follow each other and that it has shards of:
    `torch.distributed.checkpoint` reads in that order, and holds one tensor until it has the next. V is the largest
    shard that is made on the host, on its way to a device: it is cast, or lies in strips. R is a ring, see `terms`. C
    is the checkpoint. Of what a cast converts, Y is all, and D what a stream converts at once.

    Buffers that no checkpoint has, `beside_bytes`, are in S/N, and in no other term. FSDP2 brings shards to one size,
    those that are smaller by a copy: so much more, `pads`, may be there. Rank 0 `leads`.
    """

    state_bytes: int
    largest_tensor_bytes: int
    held_bytes: int
    sent_bytes: int
    unit_bytes: int
    touched_bytes: int
    largest_pair_bytes: int
    pads: int
    leads: bool = False
    file_touched_bytes: int = 0
    largest_file_bytes: int = 0
    checkpoint_bytes: int = 0
    held_saved_bytes: int = 0
    converted_to_bytes: int = 0
    largest_made_bytes: int = 0
    conversion_slot_bytes: int = 0
    beside_bytes: int = 0

    def bound_bytes(self, expression: str) -> int:
        """Return the bytes that a bound like `S/N + U` means; `a | b`: for rank 0, and for others."""
        values = {letter: getattr(self, name) for letter, name in OF_A_RANK.items()}
        values["R"] = ring_bytes(RING_BYTES, self.held_saved_bytes)
        return evaluate(of_rank(expression, leads=self.leads), values)

    def most_bytes(self, expression: str) -> int:
        """Return the same at most: with what brings shards to one size, and all pages that the kernel maps around."""
        if "T" in expression:
            return self.checkpoint_bytes
        if "F" in expression:
            return self.largest_file_bytes
        # What is sharded where it is, is made in that size.
        is_padded = "S/N" in expression.replace(" ", "") and "U" not in expression
        return self.bound_bytes(expression) + (self.pads if is_padded else 0)

    def peak_bound(self, figure: str, expression: str) -> int:
        """Return what a bound of a peak means at most; buffers beside the weights are built on the host."""
        is_within = "S/N" in expression.replace(" ", "")
        beside = self.beside_bytes if figure == "host_private_peak_bytes" and not is_within else 0
        return self.most_bytes(expression) + beside

    def slack_bytes(self, figure: str, record: Record) -> int:
        """Return how far a peak of host memory may be from its bound; what building leaves of it is in it."""
        left = (record.value(BUILT[figure]) or 0) if figure in BUILT else 0
        # To build the model may take more than to load it.
        built = max(0, (record.build_peak_bytes or 0) - 2 * self.state_bytes) if figure in BUILT else 0
        # A plan has no libraries that take memory of their own.
        return host_slack_bytes(0 if record.planned else self.state_bytes, record.tensors) + left + built

    def unseen_bytes(self, expression: str, figure: str, _record: Record) -> int:
        """Return how much of a bound need not show.

        That are FSDP2's padding, buffers that come when all else is over, and what is made on the host for a moment.
        """
        unseen = self.most_bytes(expression) - self.bound_bytes(expression)
        unseen += self.largest_made_bytes if "V" in expression else 0
        return unseen + (self.beside_bytes if figure == "host_private_peak_bytes" or "D" in expression else 0)


@dataclass(frozen=True)
class Sizes:
    """The bytes of every tensor of a model by its name: where it ends, and as it is saved; 0: it is not."""

    ends: Mapping[str, int]
    saved: Mapping[str, int]
    converted: frozenset[str]
    # Of every name in the state dict, sorted, the name of its tensor; and these in the order of the state dict.
    names: Mapping[str, str]
    saved_names: Sequence[str]

    @classmethod
    def of(cls, model: nn.Module, saved_dtypes: Mapping[str, torch.dtype], to: torch.dtype | None) -> "Sizes":
        """Return those of a skeleton.

        `saved_dtypes` are those that differ from the model's, and `to` is what floating-point weights are cast to.
        """
        tensors = dict((*model.named_parameters(), *model.named_buffers()))
        own = {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
        firsts = {id(tensor): name for name, tensor in tensors.items()}
        state: dict[int, str] = {}
        for name, value in own.items():
            state.setdefault(id(value), name)
        ends, saved, converted = {}, {}, set()
        for name, tensor in tensors.items():
            kind = saved_dtypes.get(state.get(id(tensor), ""), tensor.dtype)
            final = to if to and tensor.is_floating_point() and id(tensor) in state else tensor.dtype
            ends[name] = tensor.numel() * final.itemsize
            saved[name] = tensor.numel() * kind.itemsize if id(tensor) in state else 0
            if saved[name] and kind != final:
                converted.add(name)
        names = {name: firsts[id(own[name])] for name in sorted(own) if id(own[name]) in firsts}
        return cls(ends, saved, frozenset(converted), names, [names[name] for name in own if name in names])


def shares(  # noqa: PLR0913 - what a load is of
    model: nn.Module,
    division: Division,
    ranks: int,
    saved_dtypes: Mapping[str, torch.dtype] | None = None,
    to: torch.dtype | None = None,
    *,
    files: Sequence[Sequence[str]] = (),
    on_host: bool = False,
) -> list[Share]:
    """Return what each of some ranks has of a skeleton that is divided so; see `Sizes.of` for the dtypes.

    `files` has the names in each file of the checkpoint; none: there is one.
    """
    tensors: dict[str, Tensor] = dict((*model.named_parameters(), *model.named_buffers()))
    sizes = Sizes.of(model, saved_dtypes or {}, to)
    ends, saved = sizes.ends, sizes.saved
    dimensions, units = division.dimensions(model), division.units(model)
    divided = {name: dimension for name, dimension in dimensions.items() if dimension is not None}
    lengths = {name: tensors[name].shape[dimension] for name, dimension in divided.items()}
    state = sum(count for name, count in ends.items() if saved[name])

    kept = sent = 0
    for name in sizes.saved_names:
        # What is no distributed tensor stays until all are there.
        kept += ends[name] if name not in dimensions and tensors[name].ndim else 0
        sent = max(sent, kept + (ends[name] if name in dimensions else 0))

    parts = [{sizes.names[one] for one in part if one in sizes.names} for part in files] or [set(saved)]

    @cache
    def of(slices: tuple[int, ...]) -> Share:
        """`slices` are how much of each of the lengths a rank has."""
        own = dict(zip(distinct, slices, strict=True))

        def held_of(whole: Mapping[str, int]) -> dict[str, int]:
            lines = {name: (whole[name] // length if length else 0) for name, length in lengths.items()}
            return {**whole, **{name: lines[name] * own[length] for name, length in lengths.items()}}

        held, held_saved, padded, touched = held_of(ends), held_of(saved), dict(ends), dict(saved)
        for name, dimension in divided.items():
            length = lengths[name]
            padded[name] = ends[name] // length * -(-length // ranks) if length and division.pads else held[name]
            # What is divided otherwise lies in strips through all of its pages.
            touched[name] = held_saved[name] if dimension == 0 or not own[length] else saved[name]
        taken = peak = 0
        for unit in units:
            peak = max(peak, taken + sum(ends[name] + (padded[name] if name in divided else 0) for name in unit))
            taken += sum(padded[name] for name in unit)
        in_files = [[sum(each[name] for name in part) for part in parts] for each in (touched, saved)]
        total, passing = sum(held.values()), sum(held_saved.values())
        converting = [held_saved[name] for name in sizes.converted]
        strips = [name for name, dimension in divided.items() if dimension and 0 < held[name] < ends[name]]
        return Share(
            state_bytes=state,
            largest_tensor_bytes=max(count for name, count in ends.items() if saved[name]),
            held_bytes=total,
            sent_bytes=sent,
            unit_bytes=max(0, peak - total),
            touched_bytes=sum(touched.values()),
            largest_pair_bytes=_largest_pair([saved[name] for name in sizes.names.values() if held[name]]),
            pads=sum(padded[name] for name in tensors if padded[name] != held[name]),
            file_touched_bytes=max(in_files[0]),
            largest_file_bytes=max(in_files[1]),
            checkpoint_bytes=sum(saved.values()),
            held_saved_bytes=passing,
            converted_to_bytes=sum(ends[name] for name in sizes.converted),
            largest_made_bytes=max((held[name] for name in (*sizes.converted, *strips)), default=0),
            conversion_slot_bytes=conversion_slot_bytes(passing, max(converting, default=0), on_host=on_host),
            beside_bytes=sum(count for name, count in ends.items() if not saved[name]),
        )

    distinct = tuple(dict.fromkeys(lengths.values()))
    first, *others = (of(tuple(_chunk(length, ranks, rank) for length in distinct)) for rank in range(ranks))
    return [replace(first, leads=True), *others]


def _largest_pair(sizes: Sequence[int]) -> int:
    return max(map(sum, pairwise((0, *sizes))), default=0)


def _chunk(size: int, ranks: int, rank: int) -> int:
    """Return how much of `size` a rank has, as `torch.chunk` cuts it: the last ones may have less, or nothing."""
    first = -(-size // ranks)
    return max(0, min(size - rank * first, first))
