import sys
from dataclasses import replace
from typing import Any

import pytest

from bench.meters.allocator_settings import MIB, AllocatorSettings, allocator_settings, settings_of

DEFAULT = AllocatorSettings()


def test_the_defaults_are_those_of_pytorch() -> None:
    assert AllocatorSettings(False, 20 * MIB, sys.maxsize, 20 * MIB, (0,) * 16) == DEFAULT
    for nothing in (None, "", " \t\n"):
        assert allocator_settings(nothing) == DEFAULT


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("expandable_segments:True", {"expandable_segments": True}),
        ("expandable_segments:False", {}),
        ("max_split_size_mb:20", {"max_split_bytes": 20 * MIB}),
        ("max_non_split_rounding_mb:20", {}),
        ("max_non_split_rounding_mb:64", {"max_non_split_rounding_bytes": 64 * MIB}),
        ("roundup_power2_divisions:4", {"roundup_power2_divisions": (4,) * 16}),
        ("roundup_power2_divisions:1", {"roundup_power2_divisions": (1,) * 16}),
        # It is the default of what may be wasted, too.
        ("large_segment_size_mb:11", {"large_segment_bytes": 11 * MIB, "max_non_split_rounding_bytes": 11 * MIB}),
        ("large_segment_size_mb:30", {"large_segment_bytes": 30 * MIB, "max_non_split_rounding_bytes": 30 * MIB}),
        (
            "max_split_size_mb:11,max_non_split_rounding_mb:12,large_segment_size_mb:11",
            {
                "large_segment_bytes": 11 * MIB,
                "max_split_bytes": 11 * MIB,
                "max_non_split_rounding_bytes": 12 * MIB,
            },
        ),
        ("expandable_segments:True,max_split_size_mb:64,", {"expandable_segments": True, "max_split_bytes": 64 * MIB}),
        (
            " max_split_size_mb : 6 4 ,\n\troundup_power2_divisions : [ 1 : 2 , > : 8 ] ",
            {"max_split_bytes": 64 * MIB, "roundup_power2_divisions": (2, *(8,) * 15)},
        ),
    ],
)
def test_every_setting_is_read(text: str, changed: dict[str, Any]) -> None:
    assert allocator_settings(text) == replace(DEFAULT, **changed)


@pytest.mark.parametrize(
    "text",
    [
        "pinned_use_background_threads:True",
        "pinned_use_cuda_host_register:True",
        "pinned_num_register_threads:8",
        "release_lock_on_cudamalloc:True",
        "release_lock_on_hipmalloc:True",
        "graph_capture_record_stream_reuse:True",
        "throw_on_cudamalloc_oom:True",
        "backend:native",
    ],
)
def test_what_changes_no_byte_count_is_let_pass(text: str) -> None:
    assert allocator_settings(text) == DEFAULT
    assert allocator_settings(f"{text},max_split_size_mb:64") == AllocatorSettings(max_split_bytes=64 * MIB)


@pytest.mark.parametrize(
    ("intervals", "divisions"),
    [
        ("[64:8,256:4,1024:4,>:1]", [8] * 7 + [0, 4, 0, 4] + [1] * 5),
        ("[256:1,512:2,1024:4,>:8]", [1] * 9 + [2, 4] + [8] * 5),
        ("[64:8,128:2,256:4,512:2,1024:4,>:1]", [8] * 7 + [2, 4, 2, 4] + [1] * 5),
        ("[1:2]", [2] + [0] * 15),
        ("[64:0,>:2]", [0] * 7 + [2] * 9),
        ("[2:2,>:0]", [2] * 2 + [0] * 14),
        ("[>:4]", [0] + [4] * 15),
        ("[256:2,64:4]", [2] * 6 + [4, 2, 2] + [0] * 7),
        ("[64:8,>:2,512:4]", [8] * 7 + [2, 2, 4] + [2] * 6),
        ("[32768:2,>:4]", [2] * 16),
        ("[131072:2]", [2] * 16),
    ],
)
def test_each_interval_of_sizes_has_its_own_divisions(intervals: str, divisions: list[int]) -> None:
    """Return what `c10::CachingAllocator::AcceleratorAllocatorConfig` of torch 2.13 reads from the same text."""
    assert allocator_settings(f"roundup_power2_divisions:{intervals}").roundup_power2_divisions == tuple(divisions)


def test_intervals_begin_at_powers_of_two_from_1_mib_to_32_gib() -> None:
    settings = AllocatorSettings(roundup_power2_divisions=tuple(range(16)))
    assert settings.divisions(1) == settings.divisions(MIB) == 0
    for place in range(1, 16):
        assert settings.divisions(2**place * MIB - 1) == place - 1
        assert settings.divisions(2**place * MIB) == place
    assert settings.divisions(2**30 * MIB) == 15


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("garbage_collection_threshold:0.6", "garbage_collection_threshold"),
        ("backend:cudaMallocAsync", "backend:cudaMallocAsync"),
        ("per_process_memory_fraction:0.5", "per_process_memory_fraction"),
        ("max_split_size_kb:64", "max_split_size_kb"),
        ("Expandable_Segments:True", "Expandable_Segments"),
        ("release_lock_on_cudamalloc_too:True", "release_lock_on_cudamalloc_too"),
        ("not_pinned_use_background_threads:True", "not_pinned_use_background_threads"),
        ("pinned_reserve_segment_size_mb:1024", "pinned_reserve_segment_size_mb"),
        ("pinned_max_round_threshold_mb:1", "pinned_max_round_threshold_mb"),
        ("pinned_max_cached_size_mb:1", "pinned_max_cached_size_mb"),
        ("max_split_size_mb:19", "max_split_size_mb:19"),
        ("max_split_size_mb:-64", "max_split_size_mb:-64"),
        ("max_split_size_mb:64.5", "max_split_size_mb:64.5"),
        ("max_split_size_mb:[64]", "max_split_size_mb"),
        ("max_non_split_rounding_mb:19", "max_non_split_rounding_mb:19"),
        ("large_segment_size_mb:10", "large_segment_size_mb:10"),
        ("large_segment_size_mb:many", "large_segment_size_mb:many"),
        ("large_segment_size_mb:30,max_split_size_mb:29", "max_split_size_mb:29"),
        ("max_non_split_rounding_mb:29,large_segment_size_mb:30", "max_non_split_rounding_mb:29"),
        ("expandable_segments:true", "expandable_segments:true"),
        ("expandable_segments:1", "expandable_segments:1"),
        *[
            (f"roundup_power2_divisions:{divisions}", "roundup_power2_divisions")
            for divisions in ("0", "3", "-4", "four", "[64:3]", "[48:8]", "[0:8]", "[64]", "[64:]", "[:8]", "[>]")
        ],
    ],
)
@pytest.mark.parametrize("beside", ["{}", "throw_on_cudamalloc_oom:True,{}", "{},backend:native"])
def test_what_is_not_modelled_or_out_of_range_is_refused_by_name(text: str, named: str, beside: str) -> None:
    with pytest.raises(ValueError, match=r"^allocator settings: .+$") as refusal:
        allocator_settings(beside.format(text))
    assert named in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("garbage_collection_threshold:0.6", "unset it, or measure with --device cuda"),
        # The suite refuses it on CUDA too.
        ("backend:cudaMallocAsync", "unset it"),
    ],
)
def test_a_refusal_advises_what_works(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match=f"^allocator settings: simulated CUDA does not model {text}; {advice}$"):
        allocator_settings(text)


@pytest.mark.parametrize(
    "text",
    [
        "max_split_size_mb",
        "max_split_size_mb:",
        "max_split_size_mb=64",
        ":64",
        "64",
        ",max_split_size_mb:64",
        "max_split_size_mb:64,,expandable_segments:True",
        "max_split_size_mb:64,expandable_segments",
        "max_split_size_mb:64:65",
        "max_split_size_mb:64 expandable_segments:True",
        "max_split_size_mb:64,max_split_size_mb:64",
        "max_split_size_mb:64,max_split_size_mb:65",
        "roundup_power2_divisions:[64:8",
        "roundup_power2_divisions:64:8]",
        "roundup_power2_divisions:[64:8]8",
        "roundup_power2_divisions:[[64:8]]",
        "max_split_size_mb\n64",
    ],
)
def test_malformed_text_is_quoted_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^allocator settings: .+ is not a comma list of name:value") as refusal:
        allocator_settings(text)
    assert repr(text) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("environ", "mib"),
    [
        ({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:30"}, 30),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:40"}, 40),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:40", "PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:30"}, 30),
        ({"PYTORCH_ALLOC_CONF": "nonsense", "PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:30"}, 30),
    ],
)
def test_the_variable_that_names_cuda_counts_before_the_other(environ: dict[str, str], mib: int) -> None:
    assert settings_of(environ) == AllocatorSettings(max_split_bytes=mib * MIB)


def test_a_variable_that_is_set_to_nothing_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:30")
    assert settings_of({}) == DEFAULT
    assert settings_of({"PYTORCH_CUDA_ALLOC_CONF": "", "PYTORCH_ALLOC_CONF": "max_split_size_mb:40"}) == DEFAULT


def test_an_allocator_that_caches_nothing_is_refused() -> None:
    for beside in ({}, {"PYTORCH_ALLOC_CONF": "max_split_size_mb:40"}):
        with pytest.raises(ValueError, match=r"^PYTORCH_NO_CUDA_MEMORY_CACHING: .+; unset it$"):
            settings_of({"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} | beside)
