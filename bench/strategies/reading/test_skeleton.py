import threading
from typing import Any

import pytest
import torch
from torch import nn

from bench.strategies.reading.fit import form
from bench.strategies.reading.skeleton import OnMeta, initialise, skeleton


class Filling(nn.Module):
    """Fills weights in every way, and has tensors of its own beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Conv2d(2, 3, 3), nn.Embedding(5, 4, 0))
        self.norm = nn.BatchNorm1d(3)
        self.recurrent = nn.LSTM(2, 2, bidirectional=True)
        self.weight = nn.Parameter(torch.empty(4, 4))
        nn.init.orthogonal_(tensor=self.weight)
        nn.init.trunc_normal_(self.weight)
        self.drawn = nn.Parameter(torch.randn(3, 4).T, requires_grad=False)
        self.register_buffer("mask", torch.ones(4, 4).triu_(1).mul_(2))
        self.register_buffer("none", None)


def test_a_skeleton_has_the_weights_of_the_model_but_for_values() -> None:
    model, found = Filling(), skeleton(Filling)
    assert form(found.state_dict()) == form(model.state_dict())
    assert list(found.state_dict()) == list(model.state_dict())
    assert all(tensor.is_meta for tensor in found.state_dict().values())
    wanted = [(name, type(p), p.requires_grad) for name, p in model.named_parameters()]
    assert [(name, type(p), p.requires_grad) for name, p in found.named_parameters()] == wanted


def test_weights_that_share_memory_share_it_in_a_skeleton() -> None:
    def build() -> nn.Module:
        model, whole = nn.Module(), torch.randn(10)
        model.first, model.rest = nn.Parameter(whole[:4]), nn.Parameter(whole[4:])
        model.again = model.first
        same = nn.Parameter(torch.randn(2))
        model.inner = nn.ModuleList([nn.Linear(2, 1), nn.Linear(1, 2, bias=False)])
        model.inner[0].bias = model.one = same
        model.register_buffer("head", whole[:2])
        return model

    assert form(skeleton(build).state_dict()) == form(build().state_dict())


class Beside(nn.Module):
    """Has everything that no checkpoint has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        rates = [rate.item() for rate in torch.linspace(0, 1, 3)]
        self.register_buffer("angles", torch.arange(3) * rates[1], persistent=False)
        self.original = self.angles
        self.table = [torch.full((2,), 7.0)]
        self.cached = {"one": torch.eye(2)}


def test_what_no_checkpoint_has_has_its_values() -> None:
    model = skeleton(Beside)
    assert model.layer.weight.is_meta
    assert model.angles.tolist() == [0.0, 0.5, 1.0]
    assert model.original is model.angles
    assert model.table[0].tolist() == [7.0, 7.0]
    assert model.cached["one"].tolist() == [[1.0, 0.0], [0.0, 1.0]]


class FromBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.arange(3.0))
        self.register_buffer("doubled", 2 * self.get_buffer("frequencies"), persistent=False)


class FilledIn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        table = torch.empty(3)
        table[0], table[1:] = 1.0, torch.tensor([2.0, 3.0])
        self.register_buffer("table", table, persistent=False)


class Counting(nn.Module):
    """Looks at the values of a persistent buffer while it is built."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sizes", torch.tensor([2, 3]))
        self.layers = nn.ModuleList(nn.Linear(size, 1) for size in self.get_buffer("sizes").tolist())


class Mixing(nn.Module):
    """Makes weights of weights and of other tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.wide = nn.Parameter(torch.cat([self.layer.weight, torch.zeros(1, 2)]))


@pytest.mark.parametrize(
    ("build", "name", "expected"),
    [
        pytest.param(FromBuffer, "doubled", [0.0, 2.0, 4.0], id="from a persistent buffer"),
        pytest.param(FilledIn, "table", [1.0, 2.0, 3.0], id="filled in one by one"),
        pytest.param(Counting, None, None, id="values of a buffer"),
        pytest.param(Mixing, None, None, id="weights and others"),
    ],
)
def test_models_that_want_more_than_a_skeleton_get_it(build: Any, name: str | None, expected: list[float]) -> None:
    model = skeleton(build)
    assert form(model.state_dict()) == form(build().state_dict())
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    if name:
        assert model.get_buffer(name).tolist() == expected


def normed() -> nn.Module:
    model = nn.Linear(2, 2)
    model.register_buffer("angles", torch.ones(2), persistent=False)
    model.register_buffer("other", model.weight.norm(dim=1).detach(), persistent=False)
    return model


def sharing() -> nn.Module:
    """Has a view of the memory that a weight is given."""
    model, whole = nn.Linear(2, 2), torch.ones(4)
    model.register_buffer("other", whole[:2], persistent=False)
    model.register_buffer("weights", whole)
    return model


@pytest.mark.parametrize("build", [normed, sharing])
def test_what_comes_from_weights_is_refused_by_name(build: Any) -> None:
    with pytest.raises(ValueError, match=r"^\['other'\] are in no checkpoint, and are computed from weights"):
        skeleton(build)


def test_what_a_factory_raises_is_raised() -> None:
    def build() -> nn.Module:
        raise OSError("no such vocabulary")

    with pytest.raises(OSError, match="no such vocabulary"):
        skeleton(build)
    assert nn.Linear(2, 2).weight.device.type == "cpu"
    assert nn.BatchNorm1d(2).get_buffer("running_mean").tolist() == [0.0, 0.0]


def test_what_is_not_on_meta_is_filled() -> None:
    with OnMeta("weights"):
        assert torch.ones(2, 2).triu_(1).tolist() == [[0.0, 1.0], [0.0, 0.0]]
        assert nn.init.zeros_(tensor=torch.ones(2)).tolist() == [0.0, 0.0]
        assert torch.empty(1, device="cpu").fill_(2.0).tolist() == [2.0]


def test_missing_weights_are_initialised_as_their_modules_do() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.MultiheadAttention(2, 1), nn.BatchNorm1d(2))

    model = skeleton(build)
    missing = {name for name in model.state_dict() if not name.startswith("0.weight")}
    initialise(model, missing, "cpu", torch.bfloat16)
    found = model.state_dict()
    assert {name for name, one in found.items() if one.is_meta} == {"0.weight"}
    assert found["1.weight"].tolist() == [1.0, 1.0]
    assert found["3.running_var"].tolist() == [1.0, 1.0]
    assert found["3.num_batches_tracked"].dtype == torch.int64
    assert found["2.in_proj_weight"].abs().max() > 0
    assert found["0.bias"].dtype == torch.bfloat16


def test_a_missing_weight_with_two_names_is_initialised_by_the_module_of_the_first() -> None:
    def build() -> nn.Module:
        model = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Module()})
        model["head"].bias = model["body"].bias
        return model

    model = skeleton(build)
    initialise(model, {"body.bias", "head.bias"}, "cpu")
    assert model["head"].bias is model["body"].bias
    assert not model["head"].bias.is_meta


def test_a_missing_weight_of_a_module_that_cannot_initialise_it_is_refused_by_name() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

    with pytest.raises(ValueError, match=r"^\['0\.scale'\] are missing, and Scaled has no reset_parameters\(\)"):
        initialise(skeleton(lambda: nn.Sequential(Scaled())), {"0.scale"}, "cpu")


def hidden() -> nn.Module:
    """Keeps something that comes from a weight where no attribute shows it."""
    model = nn.Linear(2, 2)
    norms = model.weight.norm(dim=1).detach()
    model.register_forward_hook(lambda _module, _given, returned: returned * norms)
    return model


def viewing() -> nn.Module:
    """Keeps views of the memory that a weight had before it was one."""
    model, whole = nn.Module(), torch.ones(2, 4)
    vars(model)["views"] = {"rows": (whole[0], whole[1])}
    model.weight = nn.Parameter(whole)
    return model


@pytest.mark.parametrize("build", [hidden, viewing])
def test_what_comes_from_weights_is_refused_wherever_it_is(build: Any) -> None:
    with pytest.raises(ValueError, match=r"^\['tensors that it holds somewhere'\] are in no checkpoint"):
        skeleton(build)


def test_what_is_filled_in_one_by_one_has_its_values_wherever_it_is() -> None:
    def build() -> nn.Module:
        model, table = nn.Linear(2, 2), torch.empty(2)
        table[0], table[1] = 2.0, 3.0
        model.register_forward_hook(lambda _module, _given, returned: table)
        return model

    model = skeleton(build)
    assert model.weight.is_meta
    assert next(iter(model._forward_hooks.values()))(model, (), None).tolist() == [2.0, 3.0]


def test_a_model_that_is_put_on_the_host_has_a_skeleton() -> None:
    model = skeleton(lambda: nn.Sequential(Beside(), nn.BatchNorm1d(2)).to("cpu", torch.bfloat16))
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert model.get_parameter("0.layer.weight").dtype == torch.bfloat16
    assert model.get_buffer("0.angles").tolist() == [0.0, 0.5, 1.0]


def test_parameters_that_no_state_dict_has_are_refused_by_name() -> None:
    class Adapter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.low_rank = nn.Linear(2, 2), nn.Linear(2, 1)
            self.register_state_dict_post_hook(self.without_base)

        @staticmethod
        def without_base(_module: nn.Module, state_dict: dict[str, Any], _prefix: str, _: Any) -> None:
            del state_dict["base.weight"]

    with pytest.raises(ValueError, match=r"^\['base\.weight'\] are in no checkpoint"):
        skeleton(Adapter)


def test_a_state_that_a_module_saves_in_its_own_way_is_refused_by_name() -> None:
    class Scaler(nn.Module):
        def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
            destination[f"{prefix}mean"] = torch.ones(1)

    with pytest.raises(ValueError, match=r"^1 saves its state by code of its own, which alone can load it"):
        skeleton(lambda: nn.Sequential(nn.Linear(2, 2), Scaler()))


def test_models_that_other_threads_build_have_their_weights() -> None:
    built: list[nn.Module] = []

    def build() -> nn.Module:
        thread = threading.Thread(target=lambda: built.append(nn.BatchNorm1d(2)))
        thread.start()
        thread.join()
        return Beside()

    skeleton(build)
    assert not any(tensor.is_meta for model in built for tensor in model.state_dict().values())


@pytest.mark.parametrize("sets", [lambda _: None, lambda model: setattr(model, "scale", nn.Parameter(torch.ones(2)))])
def test_a_missing_weight_that_its_module_leaves_as_it_was_is_refused_by_name(sets: Any) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.bias = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))

        def reset_parameters(self) -> None:
            self.bias.data.normal_()
            sets(self)

    with pytest.raises(ValueError, match=r"^\['scale'\] are missing, and reset_parameters\(\) of Scaled does not set"):
        initialise(skeleton(Scaled), {"scale", "bias"}, "cpu")
