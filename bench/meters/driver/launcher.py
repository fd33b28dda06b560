"""The start of the stand-in for a GPU: its library, its card, and an environment that leads to both."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.meters.driver.build import CannotBuild, library
from bench.meters.driver.card import MOST_BYTES, MOST_DEVICES, READY, CardSettings, as_text
from bench.meters.driver.variables import CARD, MEMORY
from model.checkpoints.cache import cache_folder

__all__ = ["CannotBuild", "card", "start_card"]

ROOT = Path(__file__).parents[3]
MIB = 2**20


def start_card(
    settings: CardSettings, memory: str, environ: Mapping[str, str]
) -> tuple[dict[str, str], "subprocess.Popen[bytes]"]:
    """Start a card, which ends when its standard input is closed.

    Returns its process, after `environ` with what leads other processes to it; `memory` is that of its devices, as it
    is shown. Raises `CannotBuild` if it does not start.
    """
    if len(settings.memory_bytes) > MOST_DEVICES:
        raise CannotBuild(
            f"the stand-in for a GPU has {MOST_DEVICES} devices at most, not {len(settings.memory_bytes)}"
        )
    if max(settings.memory_bytes) > MOST_BYTES:
        raise CannotBuild(f"a device of the stand-in has 1 TiB at most, not {max(settings.memory_bytes):,} bytes")
    built = library(cache_folder())
    name = f"weight-loading-{secrets.token_hex(8)}"
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.meters.driver.card", name, as_text(settings)],
        env=_without(os.environ) | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    if process.stdout.readline() != READY:
        process.wait()
        raise CannotBuild(f"the process of the stand-in for a GPU ended at once, with status {process.returncode}")
    paths = {"LD_PRELOAD": str(built), "LD_LIBRARY_PATH": str(built.parent)}
    joined = {key: ":".join(filter(None, (path, environ.get(key)))) for key, path in paths.items()}
    # PyTorch's own count of devices would heed it, and the stand-in does not.
    kept = {key: value for key, value in environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    return kept | joined | {CARD: name, MEMORY: memory}, process


@contextmanager
def card(
    memory_bytes: Sequence[int], *, late: bool = False, discards: bool = False, context_bytes: int = 0
) -> Iterator[dict[str, str]]:
    """Run a card with so many bytes on each device; yield the environment of processes that use it."""
    settings = CardSettings(tuple(memory_bytes), late, discards, context_bytes, context_host_bytes=0)
    memory = ",".join(f"{count // MIB}MiB" for count in memory_bytes)
    environ, process = start_card(settings, memory, _without(os.environ) | {"PYTHONPATH": str(ROOT)})
    try:
        yield environ
    finally:
        process.communicate()


def _without(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without a stand-in that this process may be running on."""
    kept = {key: value for key, value in environ.items() if key not in (CARD, MEMORY)}
    if CARD in environ:
        for key in ("LD_PRELOAD", "LD_LIBRARY_PATH"):
            # What was put before the others.
            kept[key] = kept.get(key, "").partition(":")[2]
    return kept
