"""The suite seen to fail: every loader that is wrong on purpose is caught, by the check that is there for it."""

import pytest
import torch
from hypothesis import Phase, settings

from bench.conformance.judge import CellStatus
from bench.conformance.properties import PROPERTIES
from bench.conformance.sweep import SHARES, sweep
from bench.selftest import mutants
from bench.strategies import Bounds, Load, Strategy

CPU = torch.device("cpu")

# Which loader comes back wrong, with models of which property, by which check.
CAUGHT = (
    (mutants.parameters_only, "buffers", "values"),
    (mutants.not_strict, "missing", "fit"),
    (mutants.not_strict, "surplus", "fit"),
    (mutants.plain_load_state_dict, "dtype", "fit"),
    (mutants.plain_load_state_dict, "untied", "fit"),
    (mutants.plain_load_state_dict, "moved", "fit"),
    (mutants.broadcasting, "shape", "fit"),
    (mutants.in_float32, "dtypes", "dtype"),
    (mutants.through_bfloat16, "plain", "values"),
    (mutants.without_special_values, "values", "values"),
    (mutants.assigned, "ties", "ties"),
    (mutants.assigned, "nonpersistent", "meta"),
    (mutants.assigned, "attributes", "meta"),
    (mutants.assigned, "rotary", "meta"),
    (mutants.assigned, "plain", "optimizer"),
    (mutants.emptied, "ties", "sharing"),
    (mutants.emptied, "nonpersistent", "values"),
    (mutants.emptied, "derived", "values"),
    (mutants.with_stale_lists, "recurrent", "logits"),
    (mutants.first_of_tied, "ties", "values"),
    (mutants.packed, "strides", "strides"),
    (mutants.packed, "gaps", "strides"),
    (mutants.packed, "views", "sharing"),
    (mutants.under_other_names, "plain", "values"),
    (mutants.under_printable_names, "names", "values"),
    (mutants.thawed, "frozen", "requires_grad"),
    (mutants.with_gradients, "plain", "requires_grad"),
    (mutants.evaluating, "plain", "training"),
    (mutants.with_persistent_buffers, "nonpersistent", "keys"),
    (mutants.with_buffers_for_parameters, "frozen", "roles"),
    (mutants.in_another_order, "plain", "order"),
    (mutants.without_extra_state, "extra_state", "extra state"),
    (mutants.the_first_thousand, "crowds", "values"),
    (mutants.replaced, "plain", "optimizer"),
    (mutants.replaced, "optimizer", "optimizer"),
    (mutants.borrowed, "training", "independence"),
    (mutants.in_one_buffer, "memory", "memory"),
    (mutants.borrowed, "plain", "independence"),
    (mutants.written_through, "plain", "checkpoint"),
    (mutants.computing_otherwise, "plain", "logits"),
    (mutants.computing_otherwise, "gpt2", "logits"),
    (mutants.without_dimensions, "empty", "shape"),
    (mutants.untied_if_frozen, "mixed", "sharing"),
    (mutants.all_but_the_last_file, "torch_sharded", "values"),
    (mutants.zeros_for_other_names, "safetensors_sharded", "values"),
)


def strategy_of(load: Load) -> Strategy:
    return Strategy(load, "torch", Bounds("S", "S", "S", "0", "0"))


@pytest.mark.parametrize(("load", "name", "check"), CAUGHT, ids=lambda value: getattr(value, "__name__", value))
def test_a_wrong_loader_is_caught(load: Load, name: str, check: str) -> None:
    row = PROPERTIES[name]
    # A hundred models, the same in every run; a wrong loader is caught by one of the first.
    examples = round(100 * SHARES / row.share)
    profile = settings(max_examples=examples, phases=[Phase.generate], derandomize=True, database=None)
    cell = sweep(strategy_of(load), row, CPU, profile)
    assert cell.outcome == CellStatus.WRONG
    assert check in cell.checks, cell.why
    assert cell.example


def test_every_property_has_a_loader_without_it() -> None:
    assert {name for _, name, _ in CAUGHT} == set(PROPERTIES)


def test_a_wrong_cell_shows_the_smallest_model() -> None:
    cell = sweep(strategy_of(mutants.assigned), PROPERTIES["ties"], CPU, settings(max_examples=600, database=None))
    assert cell.example == "weight0 = weight1: parameter float32[1]"
    assert cell.why == "weight1 was one tensor with weight0, and is by itself"
    assert cell.checks == ("ties",)
