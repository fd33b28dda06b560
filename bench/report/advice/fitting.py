"""The recommended strategy among those that fit a budget, and the sentences that explain it."""

from collections.abc import Iterator, Sequence

from bench.meters import recorded_kind
from bench.report.recommendation import EQUAL_MEMORY, EQUAL_TIMES, fastest, least_memory
from bench.report.rows import Row, listed
from model.byte_sizes import short_size


def to_use(fitting: Sequence[Row]) -> list[Row]:
    """Return the rows that take least memory: of the fastest if times are of the device asked for, or else of all.

    What a CPU copies is no reason to choose for a GPU. Of loads by many processes these are of the fewest ranks. Those
    that take as little come after the best.
    """
    if fitting[0].key.parallelism:
        fewest = min(row.key.ranks for row in fitting)
        return _least_of_ranks([row for row in fitting if row.key.ranks == fewest])
    timed = [row for row in fitting if _is_timed_there(row)]
    return least_memory(fastest(timed) if timed else fitting)


def _least_of_ranks(candidates: Sequence[Row]) -> list[Row]:
    """Return the rows whose worst rank takes least of its device, and of these those whose node takes least.

    Ways to divide a model leave ranks with shares of other sizes, so bytes are compared.
    """
    figures = ("device_requested_peak_bytes", "node_private_peak_bytes")
    for figure in figures:
        least = min(_taken(row, figure) for row in candidates)
        equal = EQUAL_MEMORY * min(row.record.share_bytes or row.record.state_bytes for row in candidates)
        candidates = [row for row in candidates if _taken(row, figure) <= least + equal]
    return sorted(candidates, key=lambda row: [_taken(row, figure) for figure in figures])


def _taken(row: Row, figure: str) -> int:
    found: int | None = row.record.value(figure)
    return found or 0


def sentences(best: Row, equal: Sequence[Row], fitting: Sequence[Row], tried: Sequence[Row]) -> Iterator[str]:
    """Yield which strategy is the best, what it takes, why it is the best, and what does not fit."""
    yield f"Use {best.key.strategy} for {best.size}{_on(best)}."
    yield _takes(best)
    yield from _comparison(best, equal, fitting)
    yield from _mapped(best)
    if best.key.parallelism and (fewer := sorted({row.key.ranks for row in tried if row.key.ranks < best.key.ranks})):
        yield f"On {' or '.join(f'{count:,}' for count in fewer)} devices nothing fits."
    alike = [row for row in tried if row.key.ranks == best.key.ranks]
    if dying := [_name(row) for row in alike if not row.record.fits]:
        yield f"{listed(dying)} {'does' if len(dying) == 1 else 'do'} not fit."
    if broken := [_name(row) for row in alike if row.record.fits and row.has_failed]:
        yield f"{listed(broken)} failed otherwise."


def needs(best: Row, equal: Sequence[Row]) -> Iterator[str]:
    """Yield the best strategy and what it takes, where no budget was given, and where its weights end."""
    record, parts = best.record, []
    if (device := record.device_reserved_peak_bytes) is not None:
        parts.append(f"{short_size(device)} of {'each' if record.ranks else 'the'} device")
    if record.ranks and record.node_private_peak_bytes is not None:
        parts.append(f"{short_size(record.node_private_peak_bytes)} of each node")
    elif (host := record.host_private_peak_bytes) is not None:
        # It is counted from a level before the load, and may be less.
        parts.append(f"{short_size(max(host, 0))} of the host")
    yield f"Use {best.key.strategy} for {best.size}{_on(best)}."
    yield f"It takes {' and '.join(parts) or 'the least memory'}{_as_little(equal)}."
    if best.record.first_logits_seconds:
        where = "GPU" if recorded_kind(best.timed_on).is_gpu else "CPU"
        yield f"On this {where}, the first output came after {best.seconds:.2f} s."
    yield from _mapped(best)


def _as_little(equal: Sequence[Row]) -> str:
    """Return the end of a sentence that names the rows that take as little as the best; empty if there are none."""
    if not equal:
        return ""
    return f"; {listed([_name(row) for row in equal])} {'takes' if len(equal) == 1 else 'take'} as little"


def _mapped(best: Row) -> Iterator[str]:
    if best.record.ownership == "mapped":
        yield "Its weights stay in the pages of the file, which has to stay as it is while the model is used."


def _on(row: Row) -> str:
    if row.key.parallelism:
        return f" on {row.key.ranks:,} devices, divided by {row.key.parallelism}"
    return _on_one(row)


def _on_one(row: Row) -> str:
    return "" if recorded_kind(row.record.device).is_host else " on one device"


def _name(row: Row) -> str:
    """Return the name of a row among others of as many ranks."""
    return f"{row.key.strategy} {row.key.parallelism}".rstrip()


def _is_timed_there(row: Row) -> bool:
    record = row.record
    return bool(record.first_logits_seconds) and row.timed_on == record.device


def _takes(row: Row) -> str:
    record, parts = row.record, []
    device, host = record.device_reserved_peak_bytes, record.host_private_peak_bytes
    if device is not None and record.device_budget_bytes:
        which = "each" if record.ranks else "the"
        parts.append(f"{short_size(device)} of the {short_size(record.device_budget_bytes)} of {which} device")
    if record.ranks and record.host_budget_bytes and record.node_private_peak_bytes is not None:
        parts.append(
            f"{short_size(record.node_private_peak_bytes)} of the {short_size(record.host_budget_bytes)} of each node, "
            f"beside {record.ranks_per_node} empty processes"
        )
    elif host is not None and record.host_budget_bytes:
        parts.append(
            f"{short_size(host)} of the {short_size(record.host_budget_bytes)} of the host, beside an empty process"
        )
    return f"It takes {' and '.join(parts)}." if parts else "It fits."


def _comparison(best: Row, equal: Sequence[Row], fitting: Sequence[Row]) -> Iterator[str]:
    """Yield how soon the first output comes, beside the next strategy; without times, that it takes least memory."""
    if not _is_timed_there(best):
        count = sum(row.key.ranks == best.key.ranks for row in fitting)
        if count > 1:
            yield f"Of the {count} that fit, it takes the least memory{_as_little(equal)}."
        return
    seconds = best.seconds
    speed = f"The first output comes after {seconds:.2f} s"
    others = [row for row in fitting if row is not best and _is_timed_there(row)]
    if not others:
        yield f"{speed}."
        return
    next_best = min(others, key=lambda row: row.seconds)
    times = next_best.seconds / seconds
    if times <= EQUAL_TIMES:
        more = "" if next_best in equal else ", which takes more memory"
        yield f"{speed}, as soon as with {next_best.name}{more}."
    else:
        yield f"{speed}, {times:.1f} times as fast as with {next_best.name}, the next."
