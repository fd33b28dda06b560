"""The settings of `PYTORCH_ALLOC_CONF` for the CUDA caching allocator that change how many bytes it takes.

Grammar and meaning are those of `c10/core/AllocatorConfig.cpp` and `c10/cuda/CUDAAllocatorConfig.h`, torch 2.13.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

KIB = 2**10
MIB = 2**20

# The first of them that is set counts.
VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")

# From 1 MiB to 64 GiB, in powers of two: each may be divided in its own way.
INTERVALS = 16

# These change when something happens, or how, but not what tensors take.
_WITHOUT_EFFECT = re.compile(
    "pinned_use_(background_threads|cuda_host_register|hip_host_register)|pinned_num_register_threads"
    "|release_lock_on_(cuda|hip)malloc|graph_capture_record_stream_reuse|throw_on_cudamalloc_oom"
)

_SETTING = re.compile(r"(\w+):(\[[^]]*]|[^],:[]+)(?:,|$)")


@dataclass(frozen=True)
class AllocatorSettings:
    """The settings that change byte counts; the defaults are PyTorch's."""

    expandable_segments: bool = False
    large_segment_bytes: int = 20 * MIB
    max_split_bytes: int = sys.maxsize
    max_non_split_rounding_bytes: int = 20 * MIB
    roundup_power2_divisions: tuple[int, ...] = (0,) * INTERVALS

    def divisions(self, requested: int) -> int:
        """Return the number of parts that a power of two is divided into when a request is rounded up; 0: none."""
        return self.roundup_power2_divisions[min(max(requested.bit_length() - 21, 0), INTERVALS - 1)]


def settings_of(environ: Mapping[str, str]) -> AllocatorSettings:
    """Return the settings of an environment. Raises `ValueError`, in one line, for settings that are not modelled."""
    if environ.get("PYTORCH_NO_CUDA_MEMORY_CACHING"):
        raise ValueError("PYTORCH_NO_CUDA_MEMORY_CACHING: simulated CUDA does not model it; unset it")
    return allocator_settings(next((environ[name] for name in VARIABLES if name in environ), None))


def allocator_settings(text: str | None) -> AllocatorSettings:
    """Return the settings that `text` means, a comma list of `name:value`.

    Raises `ValueError`, in one line, if it is malformed or means something that is not modelled.
    """
    compact = re.sub(r"\s", "", text or "")
    pairs = dict(_SETTING.findall(compact))
    if ",".join(f"{name}:{value}" for name, value in pairs.items()) != compact.removesuffix(","):
        raise ValueError(f"allocator settings: {text!r} is not a comma list of name:value; write each name once")
    # Others have it as their default, so it is read first.
    large_segment = _mib(pairs, "large_segment_size_mb", "20", above=10)
    settings = AllocatorSettings(large_segment_bytes=large_segment, max_non_split_rounding_bytes=large_segment)
    for name, value in pairs.items():
        settings = _with(settings, name, value, pairs)
    return settings


def _with(settings: AllocatorSettings, name: str, value: str, pairs: Mapping[str, str]) -> AllocatorSettings:
    least = settings.large_segment_bytes // MIB - 1
    match name:
        case "expandable_segments":
            return replace(settings, expandable_segments=_flag(name, value))
        case "max_split_size_mb":
            return replace(settings, max_split_bytes=_mib(pairs, name, value, above=least))
        case "max_non_split_rounding_mb":
            return replace(settings, max_non_split_rounding_bytes=_mib(pairs, name, value, above=least))
        case "roundup_power2_divisions":
            return replace(settings, roundup_power2_divisions=_divisions(value))
        case "large_segment_size_mb":
            return settings
    if (name, value) == ("backend", "native") or _WITHOUT_EFFECT.fullmatch(name):
        return settings
    # There it is refused too: it does not count what tensors ask for.
    elsewhere = "" if name == "backend" else ", or measure with --device cuda"
    raise ValueError(f"allocator settings: simulated CUDA does not model {name}:{value}; unset it{elsewhere}")


def _mib(pairs: Mapping[str, str], name: str, default: str, above: int) -> int:
    value = pairs.get(name, default)
    if not value.isdecimal() or int(value) <= above:
        raise ValueError(f"allocator settings: {name}:{value} is out of range; give a number of MiB above {above}")
    return int(value) * MIB


def _flag(name: str, value: str) -> bool:
    if value not in ("True", "False"):
        raise ValueError(f"allocator settings: {name}:{value} is no flag; give True or False")
    return value == "True"


def _divisions(value: str) -> tuple[int, ...]:
    """Return the divisions that a value means: a number for all sizes, or `[64:8,256:4,>:1]`, by powers of two of MiB.

    Sizes below the first have its divisions, `>` stands for all sizes above the last, other sizes are not rounded.
    """
    if not value.startswith("["):
        return (_power_of_two(value),) * INTERVALS
    divisions, last = [0] * INTERVALS, None
    for part in value[1:-1].split(","):
        boundary, _, count = part.partition(":")
        number = 0 if count == "0" else _power_of_two(count)
        if boundary == ">":
            first = 0 if last is None else last
            divisions[first + 1 :] = [number] * (INTERVALS - first - 1)
            continue
        place = min(_power_of_two(boundary).bit_length() - 1, INTERVALS - 1)
        if last is None:
            divisions[:place] = [number] * place
        divisions[place] = number
        last = place
    return tuple(divisions)


def _power_of_two(text: str) -> int:
    if not text.isdecimal() or int(text).bit_count() != 1:
        raise ValueError(
            f"allocator settings: roundup_power2_divisions has {text!r}, which is not a power of two; give one"
        )
    return int(text)
