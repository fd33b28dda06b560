"""Memory that stays free after the load, for activations and the KV cache."""

from collections.abc import Iterator
from functools import cache

from bench.measure.budgets import planned_empty_bytes
from bench.measure.case import Case
from bench.meters import recorded_kind
from bench.record.record import Record
from bench.report.rows import Row
from bench.sharded.sharded_case import ShardedCase
from model.byte_sizes import fine_size, short_size
from model.parallel.division import TENSOR
from model.parallel.tensor_plan import divides_heads
from model.user.kv_cache import KVCache, cache_of
from model.user.user_model import UserModel


def left_free(row: Row, case: Case | None) -> Iterator[str]:
    """Yield a sentence of what stays free where the weights end; nothing where no budget was given for that."""
    record, kept = row.record, None
    if (left := _left_bytes(record)) is None:
        return
    if case and case.user_model:
        kept = _cache_of_rank(case.user_model, case)
    on_host = recorded_kind(record.device).is_host
    budget = short_size((record.host_budget_bytes if on_host else record.device_budget_bytes) or 0)
    whole = f"the host's {budget}" if on_host else f"{'each' if row.key.parallelism else 'the'} {budget}"
    with_cache = _and_cache(kept, left) if kept else ""
    said = f"After the load, {short_size(max(left, 0))} of {whole} stay free for activations{with_cache}"
    # Ranks of FSDP have sequences of their own, others compute the same ones together.
    yield f"{said} on each device." if kept and row.key.parallelism == "fsdp" else f"{said}."


def _left_bytes(record: Record) -> int | None:
    """Return the budget less what the weights hold after the load, with what the allocator took for them."""
    if recorded_kind(record.device).is_host:
        budget, peak = record.host_budget_bytes, record.host_private_peak_bytes
        requested = peak
        # Where many processes share a host, it is not said whose that is.
        if budget is None or record.ranks:
            return None
        budget -= planned_empty_bytes()
        held = 0 if record.ownership == "mapped" else record.state_bytes
    else:
        budget, peak = record.device_budget_bytes, record.device_reserved_peak_bytes
        requested = record.device_requested_peak_bytes
        held = record.share_bytes or record.state_bytes + (record.beside_bytes or 0)
    if budget is None or peak is None:
        return None
    passing = 0 if requested is None else max(requested - held, 0)
    return budget - (peak - passing)


@cache
def _cache_of(model: UserModel) -> KVCache | None:
    return cache_of(model)


def _cache_of_rank(model: UserModel, case: Case) -> KVCache | None:
    """Return what the cache takes of one device: ranks divide it if they divide the heads."""
    kept = _cache_of(model)
    if kept and isinstance(case, ShardedCase) and case.parallelism == TENSOR:
        divided = divides_heads(model.skeleton(), case.division.tp_plan)
        return kept.divided(case.group.count) if divided else kept
    return kept


def _and_cache(kept: KVCache, left: int) -> str:
    """Return the rest of the sentence: what the cache takes, and how long a sequence, or how many, it has room for."""
    what = "the KV cache" if kept.token_bytes else "the state of each sequence"
    return f" and {what}, which takes {_rates(kept)}: {_most(kept, left)}"


def _rates(kept: KVCache) -> str:
    if not kept.token_bytes:
        return fine_size(kept.sequence_bytes)
    token = "token of the input with one of the output" if kept.paired else "token of a sequence"
    parts = [f"{fine_size(kept.token_bytes)} for each {token}"]
    if kept.window is not None:
        beyond = f"{fine_size(kept.later_bytes)} for each one beyond" if kept.later_bytes else "nothing beyond"
        parts = [f"{parts[0]} up to {kept.window:,} tokens", beyond]
    return " and ".join([*parts, *([f"{fine_size(kept.sequence_bytes)} beside"] if kept.sequence_bytes else [])])


def _most(kept: KVCache, left: int) -> str:
    tokens = kept.tokens_in(left)
    if tokens is None:
        whole = kept.bytes_of(kept.window or 0)
        return f"at most about {_about(left // whole)} sequences of any length"
    if tokens == 0:
        return "too little for one token"
    alone = kept.window is None and not kept.sequence_bytes
    return f"at most about {_about(tokens)} tokens{'' if alone else ' in one sequence'}"


def _about(count: int) -> str:
    """Write a number rounded down to two digits."""
    step = 10 ** max(0, len(str(count)) - 2)
    return f"{count // step * step:,}"
