"""The option `--stand-in`: pytest starts once more, on a stand-in for as many GPUs as there are amounts of memory."""

import os
import sys
from typing import Any

import pytest

from bench.meters.driver import kernels
from bench.meters.driver.card import CardSettings
from bench.meters.driver.stand_in import CannotBuild, start_card
from bench.meters.driver.variables import CARD
from bench.plugin.budget_options import amount

STAND_IN_OPTIONS = (
    (
        *("--stand-in", None, "BYTES"),
        "run on a stand-in for a GPU with this much memory, such as 80GiB; a comma list for several (default: none)",
    ),
)

LEAST_BYTES = 2 * 2**30


def require_stand_in(config: pytest.Config) -> None:
    """Have this run, if it is to be on a stand-in, go on in its place: it is started anew if it is not there.

    Raises `UsageError` with one line where there cannot be one.
    """
    if CARD in os.environ:
        kernels.register()
    elif config.option.stand_in is not None:
        try:
            card = settings_of(config.option)
            _begin_again(config, card)
        except (ValueError, CannotBuild) as error:
            raise pytest.UsageError(str(error)) from None


def settings_of(options: Any) -> CardSettings:
    """Return the devices that options ask for. Raises `ValueError` with one line."""
    if options.plan:
        raise ValueError("--stand-in: a plan is made for sim or cpu; leave out --stand-in or --plan")
    if options.device != "auto" and options.device.partition(":")[0] != "cuda":
        raise ValueError(f"--stand-in: it stands in for a GPU, and --device is {options.device}; leave one of them out")
    settings = CardSettings(tuple(amount("--stand-in", text) for text in options.stand_in.split(",")))
    if min(settings.memory_bytes) < LEAST_BYTES:
        raise ValueError(
            f"--stand-in: {options.stand_in} is too little: pytest and a load have a context of CUDA each, of "
            f"{settings.context_bytes // 2**20} MiB; give at least 2GiB"
        )
    return settings


def _begin_again(config: pytest.Config, settings: CardSettings) -> None:
    """Replace this process by one that runs the same command on a stand-in. Raises `CannotBuild`."""
    environ, card = start_card(settings, config.option.stand_in, os.environ)
    # The card ends when the process that takes this one's place does.
    assert card.stdin is not None
    os.set_inheritable(card.stdin.fileno(), True)
    if manager := config.pluginmanager.getplugin("capturemanager"):
        manager.stop_global_capturing()
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)  # noqa: S606
