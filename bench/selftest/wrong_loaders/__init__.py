"""Loaders that load a wrong model and hide it from whoever compares it in their own process: each is to be found out.

`right` loads what was saved; every other one is given that, and makes one thing wrong.
"""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from bench.selftest.wrong_loaders import changes, hidings, patches, twins, values

WRONG: dict[str, Callable[[nn.Module, Path], nn.Module]] = {
    one.__name__: one for one in (*patches.WRONG, *values.WRONG, *hidings.WRONG, *twins.WRONG, *changes.WRONG)
}
