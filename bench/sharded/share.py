"""Terms of the bounds of a rank: the share of a model that it holds, and what a load takes beside it there."""

from dataclasses import dataclass, replace
from functools import cache

from torch import nn

from bench.measure.expression import evaluate, of_rank
from bench.measure.terms import OF_A_RANK, RING_BYTES, host_slack_bytes
from bench.record.record import Record
from bench.strategies.reading.memory import ring_bytes
from model.parallel import Parallelism


@dataclass(frozen=True)
class Share:
    """The terms of a bound for one rank of N, in bytes.

    S are the model's state bytes, and L those of its largest tensor. S/N is what the rank holds in the end, to the
    byte: its shards, and what every rank has whole. B is what of that are plain tensors, as all buffers are. U is
    what it takes beyond S/N to move what is sharded in one go to the device, whole, and to shard it there. T are the
    bytes of pages of the checkpoint that hold something of its shards, and M those of the largest tensor that it has a
    shard of. R is a ring, see `terms`. FSDP2 brings
    shards to one size, those that are smaller by a copy: so much more, `pads`, may be there. Rank 0 `leads`.
    """

    state_bytes: int
    largest_tensor_bytes: int
    held_bytes: int
    plain_bytes: int
    unit_bytes: int
    touched_bytes: int
    largest_held_bytes: int
    pads: int
    leads: bool = False

    def bound_bytes(self, expression: str) -> int:
        """Return the bytes that a bound like `S/N + U` means; `a | b`: for rank 0, and for others."""
        values = {letter: getattr(self, name) for letter, name in OF_A_RANK.items()}
        values["R"] = ring_bytes(RING_BYTES, self.held_bytes)
        return evaluate(of_rank(expression, leads=self.leads), values)

    def most_bytes(self, expression: str) -> int:
        """Return the same at most: with what brings shards to one size, and all pages that the kernel maps around."""
        if "T" in expression:
            return self.state_bytes
        # What is sharded where it is, is made in that size.
        is_padded = "S/N" in expression.replace(" ", "") and "U" not in expression
        return self.bound_bytes(expression) + (self.pads if is_padded else 0)

    def peak_bound(self, _figure: str, expression: str) -> int:
        return self.most_bytes(expression)

    def slack_bytes(self, _figure: str, record: Record) -> int:
        return host_slack_bytes(self.state_bytes, record.tensors)

    def unseen_bytes(self, expression: str, _figure: str, _record: Record) -> int:
        return self.most_bytes(expression) - self.bound_bytes(expression)


def shares(model: nn.Module, parallelism: Parallelism, ranks: int) -> list[Share]:
    """Return what each of some ranks has of a skeleton that is divided so."""
    tensors = dict((*model.named_parameters(), *model.named_buffers()))
    dimensions, units = parallelism.dimensions(model), parallelism.units(model)
    divided = {name: dimension for name, dimension in dimensions.items() if dimension is not None}
    sizes = {name: tensors[name].shape[dimension] for name, dimension in divided.items()}
    whole = {name: tensor.nbytes for name, tensor in tensors.items()}
    plain = sum(count for name, count in whole.items() if name not in dimensions)
    largest = max(tensors, key=lambda name: whole[name])

    @cache
    def of(slices: tuple[int, ...]) -> Share:
        """`slices` are how much of each of the sizes a rank has."""
        own = dict(zip(distinct, slices, strict=True))
        held, padded, touched = dict(whole), dict(whole), dict(whole)
        for name, dimension in divided.items():
            size = sizes[name]
            held[name] = whole[name] // size * own[size] if size else 0
            padded[name] = whole[name] // size * -(-size // ranks) if size and parallelism.pads else held[name]
            # What is divided otherwise lies in strips through all of its pages.
            touched[name] = held[name] if dimension == 0 or not own[size] else whole[name]
        taken = peak = 0
        for unit in units:
            peak = max(peak, taken + sum(whole[name] + (padded[name] if name in divided else 0) for name in unit))
            taken += sum(padded[name] for name in unit)
        total = sum(held.values())
        return Share(
            state_bytes=sum(whole.values()),
            largest_tensor_bytes=whole[largest],
            held_bytes=total,
            plain_bytes=plain,
            unit_bytes=max(0, peak - total),
            touched_bytes=sum(touched.values()),
            largest_held_bytes=max(whole[name] for name, count in held.items() if count),
            pads=sum(padded[name] for name in tensors if padded[name] != held[name]),
        )

    distinct = tuple(dict.fromkeys(sizes.values()))
    return [
        replace(of(tuple(_chunk(size, ranks, rank) for size in distinct)), leads=rank == 0) for rank in range(ranks)
    ]


def _chunk(size: int, ranks: int, rank: int) -> int:
    """Return how much of `size` a rank has, as `torch.chunk` cuts it: the last ones may have less, or nothing."""
    first = -(-size // ranks)
    return max(0, min(size - rank * first, first))
