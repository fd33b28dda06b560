"""Effects of a move to a device on ties, views and strides, on a simulated device: all but the values."""

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import Phase, find, settings
from hypothesis.errors import NoSuchExample

from bench.conformance.model_differences import ModelDifference, differences
from bench.conformance.properties import PROPERTIES, Property, columns
from bench.conformance.specimens import Specimen
from bench.meters.simulated.ledger import Ledger
from bench.meters.simulated.simulation import simulation
from bench.strategies import STRATEGIES, Strategy
from model.layouts.files import save_plain
from model.layouts.layouts import LAYOUTS
from model.values.bits import difference_in_kind

CUDA = torch.device("cuda")

FEW = settings(max_examples=4, phases=[Phase.generate], deadline=None, database=None)


class Refused(Exception):
    """A recipe raised."""


def load_to_cuda(strategy: Strategy, row: Property, specimen: Specimen) -> list[ModelDifference]:
    """Return the differences after a load to a simulated device, except values. Raises `Refused` if the load raises."""
    layout = LAYOUTS[row.layout or strategy.layout]
    with TemporaryDirectory() as folder:
        saved = specimen.saved()
        layout.save(specimen.state_dict(saved), Path(folder), save_plain)
        with simulation(Ledger(strategy.source), planned=False):
            try:
                loaded = strategy.load(specimen.build, Path(folder) / layout.entrance, CUDA)
            except (ValueError, KeyError, RuntimeError) as error:
                raise Refused from error
            return differences(specimen.saved(), loaded, CUDA, difference_in_kind)


@pytest.mark.parametrize(
    ("strategy", "name"),
    [
        pytest.param(strategy, name, id=f"{strategy.name}-{name}")
        for strategy in STRATEGIES.values()
        for name in columns(strategy)
        if name != "crowds"
    ],
)
def test_a_load_to_a_device_keeps_what_its_row_says(strategy: Strategy, name: str) -> None:
    row, refusals = PROPERTIES[name], []

    def comes_back_wrong(specimen: Specimen) -> bool:
        try:
            return bool(load_to_cuda(strategy, row, specimen))
        except Refused as refused:
            refusals.append(refused)
            return False

    with suppress(NoSuchExample):
        wrong = find(row.specimens(strategy.refused("cuda")), comes_back_wrong, settings=FEW)
        pytest.fail(f"{wrong}: {', '.join(map(str, load_to_cuda(strategy, row, wrong)))}")
    assert bool(refusals) == (name in strategy.refused("cuda") or not row.fits)
