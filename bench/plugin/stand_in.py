"""The option `--stand-in`: starts pytest again, on a stand-in with one GPU for each amount of memory."""

import os
import sys

import pytest

from bench.meters.driver import card_kernels
from bench.meters.driver.card import CardSettings
from bench.meters.driver.launcher import CannotBuild, start_card
from bench.meters.driver.variables import CARD
from bench.plugin.options import Options


def require_stand_in(config: pytest.Config, options: Options) -> None:
    """Have this run go on on a stand-in if it asks for one: pytest is started anew if the stand-in is not there.

    Raises `UsageError` with one line where there cannot be one.
    """
    if CARD in os.environ:
        card_kernels.register()
    elif options.stand_in is not None:
        try:
            _begin_again(config, options.stand_in)
        except CannotBuild as error:
            raise pytest.UsageError(str(error)) from None


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
