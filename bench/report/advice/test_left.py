"""Sentences about the memory that stays free, for caches of all kinds."""

from pathlib import Path
from typing import Any

import pytest

from bench.measure.case import Case
from bench.report.advice import left
from bench.report.advice.left import left_free
from bench.report.advice.table_rows import GIB, MIB, rank_row, row
from bench.sharded.rank_group import RankGroup
from bench.sharded.sharded_case import ShardedCase
from model.parallel.division import Division
from model.user.from_options import user_model
from model.user.kv_cache import KVCache
from model.user.user_model import UserModel

KIB = 1024


@pytest.fixture
def model(tmp_path: Path) -> UserModel:
    (tmp_path / "mine.py").write_text("from torch import nn\n\ndef net():\n    return nn.Linear(3, 3)\n")
    return user_model(f"{tmp_path / 'mine.py'}:net", None, None, None)


def case_of(model: UserModel, parallelism: str = "") -> Case:
    known: dict[str, Any] = {"planned": True, "user_model": model}
    names = ("streamed", "net", "sim", "float32")
    if parallelism:
        return ShardedCase(*names, division=Division(parallelism), group=RankGroup(8, (0,), 8), **known)
    return Case(*names, **known)


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (None, "."),
        (
            KVCache(0, 320 * KIB),
            " and the KV cache, which takes 320 KiB for each token of a sequence: at most about 3,200 tokens.",
        ),
        (
            KVCache(0, 320 * KIB, paired=True),
            " and the KV cache, which takes 320 KiB for each token of the input with one of the output: at most about "
            "3,200 tokens.",
        ),
        (
            KVCache(MIB, 320 * KIB),
            " and the KV cache, which takes 320 KiB for each token of a sequence and 1 MiB beside: at most about 3,200 "
            "tokens in one sequence.",
        ),
        (
            KVCache(0, 320 * KIB, window=1023, later_bytes=64 * KIB),
            " and the KV cache, which takes 320 KiB for each token of a sequence up to 1,023 tokens and 64 KiB for "
            "each one beyond: at most about 12,000 tokens in one sequence.",
        ),
        (
            KVCache(0, 320 * KIB, window=1023),
            " and the KV cache, which takes 320 KiB for each token of a sequence up to 1,023 tokens and nothing "
            "beyond: at most about 3 sequences of any length.",
        ),
        (
            KVCache(3 * MIB, 0),
            " and the state of each sequence, which takes 3 MiB: at most about 340 sequences of any length.",
        ),
        (
            KVCache(2 * GIB, KIB),
            " and the KV cache, which takes 1 KiB for each token of a sequence and 2 GiB beside: too little for one "
            "token.",
        ),
    ],
)
def test_what_is_free_is_said_with_what_a_cache_takes_of_it(
    kept: KVCache | None, said: str, model: UserModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(left, "cache_of", lambda _: kept)
    left._cache_of.cache_clear()
    assert list(left_free(row("streamed"), case_of(model))) == [
        f"After the load, 1 GiB of the 2 GiB stay free for activations{said}"
    ]


@pytest.mark.parametrize(
    ("parallelism", "divides", "said"),
    [
        # Each rank of FSDP has sequences of its own.
        ("fsdp", True, "320 KiB for each token of a sequence: at most about 3,200 tokens on each device."),
        ("tensor", True, "40 KiB for each token of a sequence: at most about 26,000 tokens."),
        ("tensor", False, "320 KiB for each token of a sequence: at most about 3,200 tokens."),
    ],
)
def test_ranks_divide_the_cache_if_they_divide_the_heads(
    parallelism: str, divides: bool, said: str, model: UserModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(left, "cache_of", lambda _: KVCache(0, 320 * KIB))
    monkeypatch.setattr(left, "divides_heads", lambda *_: divides)
    left._cache_of.cache_clear()
    table_row = rank_row("streamed", 8, parallelism)
    [sentence] = left_free(table_row, case_of(model, parallelism))
    assert (
        sentence
        == f"After the load, 1 GiB of each 2 GiB stay free for activations and the KV cache, which takes {said}"
    )


def test_without_a_budget_of_the_place_where_weights_end_nothing_is_said() -> None:
    assert list(left_free(row("streamed", device_budget_bytes=None, host_budget_bytes=GIB), None)) == []


def test_on_the_host_an_empty_process_and_what_passes_are_reckoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a peak of 1.5 GiB the load gives half a GiB back."""
    monkeypatch.setattr(left, "planned_empty_bytes", lambda: 256 * MIB)
    on_host: dict[str, Any] = {"device": "cpu", "device_budget_bytes": None, "device_reserved_peak_bytes": None}
    loaded = row("per_tensor", host_budget_bytes=2 * GIB, host_private_peak_bytes=3 * GIB // 2, **on_host)
    assert list(left_free(loaded, None)) == ["After the load, 768 MiB of the host's 2 GiB stay free for activations."]
