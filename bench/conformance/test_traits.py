import pytest
import torch
from torch import nn

from bench.conformance.traits import properties_of


class Various(nn.Module):
    def __init__(self, *names: str) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        if "nonpersistent" in names:
            self.register_buffer("angles", torch.ones(3), persistent=False)
        if "views" in names:
            self.register_buffer("head", self.layer.weight.detach()[:2])
        if "gaps" in names:
            self.register_buffer("every_second", torch.ones(8)[::2])
        if "ties" in names:
            self.other = nn.Linear(4, 4, bias=False)
            self.other.weight = self.layer.weight
        if "empty" in names:
            self.register_buffer("none", torch.ones(0))
        if "extra_state" in names:
            self.inner = Remembering()


class Remembering(nn.Module):
    def get_extra_state(self) -> int:
        return 7

    def set_extra_state(self, state: int) -> None:
        pass


@pytest.mark.parametrize("on", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("names", "found"),
    [
        ((), {}),
        (("ties", "empty"), {}),
        (("nonpersistent",), {"nonpersistent": ["angles"]}),
        (("views",), {"views": ["head", "layer.weight"]}),
        (("gaps",), {"gaps": ["every_second"]}),
        (("extra_state",), {"extra_state": ["inner._extra_state"]}),
        (
            ("nonpersistent", "gaps", "ties", "extra_state"),
            {"nonpersistent": ["angles"], "gaps": ["every_second"], "extra_state": ["inner._extra_state"]},
        ),
    ],
)
def test_a_model_has_what_it_is_seen_to_have(names: tuple[str, ...], found: dict[str, list[str]], on: str) -> None:
    with torch.device(on):
        model = Various(*names)
    assert {name: sorted(who) for name, who in properties_of(model).items()} == found


def test_an_attribute_that_is_lost_on_meta_is_one_that_no_checkpoint_has() -> None:
    with torch.device("meta"):
        model = nn.Linear(2, 2)
        model.table = torch.ones(2)
    assert properties_of(model) == {"nonpersistent": ["table"]}
