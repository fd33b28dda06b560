"""Division by tensor parallelism: a plan maps names of modules to styles, in the format of transformers.

https://docs.pytorch.org/docs/stable/distributed.tensor.parallel.html describes the styles of PyTorch, and
https://arxiv.org/abs/1909.08053 the idea.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Any

from torch import nn

from model.user.reference import Reference
from model.user.user_code import naming_failures

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

# Styles of which every rank computes all.
WHOLE = ("replicate", "replicated_with_grad_allreduce", "mla_kv_a_proj")
# Kinds of styles: a layer is divided by its outputs or its inputs; every rank has all of its parameters, as distributed
# tensors; or only what goes in and out changes.
COLUMNS, ROWS, SEQUENCE, AROUND = "columns", "rows", "sequence", "around"

# The dimension of each parameter of a layer, by the kind of a style; None: every rank has all of it.
DIMENSIONS: Mapping[tuple[type[nn.Module], str], Mapping[str, int | None]] = {
    (nn.Linear, COLUMNS): {"weight": 0, "bias": 0},
    (nn.Linear, ROWS): {"weight": 1, "bias": None},
    (nn.Embedding, COLUMNS): {"weight": 1},
    (nn.Embedding, ROWS): {"weight": 0},
}
# Layers that compute each head by itself, by the end of their names: their ranks need whole heads.
KEYS_AND_VALUES = ("k_proj", "v_proj", "qkv_proj", "qkv", "key", "value", "query_key_value", "k", "v", "c_attn")
HEADS = ("q_proj", "query", "q", *KEYS_AND_VALUES)


@dataclass(frozen=True)
class Style:
    """A style of a plan: `kind` of `DIMENSIONS`, and PyTorch's own, which `make` makes, and `code` in a script.

    `is_local`: a rank goes on with its part of the outputs, or of the inputs.
    """

    kind: str
    make: Callable[[], Any]
    code: str
    is_local: bool = False


@cache
def styles() -> Mapping[str, Style]:
    """Return the styles that PyTorch has, by the names that transformers gives them."""
    from torch.distributed.tensor import Replicate  # noqa: PLC0415 - it takes a second
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel  # noqa: PLC0415

    gathered = Style(
        COLUMNS, lambda: ColwiseParallel(output_layouts=Replicate()), "ColwiseParallel(output_layouts=Replicate())"
    )
    split = Style(
        ROWS, lambda: RowwiseParallel(input_layouts=Replicate()), "RowwiseParallel(input_layouts=Replicate())"
    )
    return {
        "colwise": Style(COLUMNS, ColwiseParallel, "ColwiseParallel()", is_local=True),
        "rowwise": Style(ROWS, RowwiseParallel, "RowwiseParallel()", is_local=True),
        "colwise_gather_output": gathered,
        "colwise_rep": gathered,
        "rowwise_split_input": split,
        "rowwise_rep": split,
        "embedding_rowwise": split,
        "embedding_colwise": gathered,
    }


def plan_of(model: nn.Module, reference: Reference | None) -> Mapping[str, Any]:
    """Return the styles of a model by the names of modules, which may have `*` in them; none if there is no plan.

    It is what `reference` names, or what the model brings as `tp_plan`. Raises `ValueError`, in a line, for something
    else than a plan.
    """
    if reference is None:
        brought = getattr(model, "tp_plan", None)
        return brought if isinstance(brought, Mapping) else {}
    found = reference.find()
    with reference.running(), naming_failures(f"{reference.display_name} fails"):
        plan = found if isinstance(found, Mapping) or not callable(found) else found()
    if not (isinstance(plan, Mapping) and plan and all(isinstance(name, str) for name in plan)):
        raise ValueError(
            f"{reference.display_name} is of type {type(plan).__name__}, and not a plan; write a dict of names of "
            f"modules and styles, such as {{'layers.*.q_proj': 'colwise'}}"
        )
    return plan


def divided_layers(model: nn.Module, reference: Reference | None) -> dict[str, tuple[nn.Module, Any]]:
    """Return each layer that a plan divides, by its name, with its style.

    What is tied to another layer stays whole. Raises `ValueError`, in a line, for a plan that cannot be followed.
    """
    plan, modules = plan_of(model, reference), dict(model.named_modules())
    found: dict[str, tuple[nn.Module, Any]] = {}
    for pattern, style in plan.items():
        names = _matching(pattern, modules)
        if not names and not _matching(pattern, dict(model.named_parameters())):
            if reference:
                raise ValueError(
                    f"the plan names {pattern!r}, which the model does not have; choose from {_some(modules)}"
                )
            continue
        if isinstance(style, str) and style in WHOLE:
            continue
        for name in names or [pattern]:
            _dimensions(name, modules.get(name), style)
            found[name] = modules[name], style
    tied = _tied(model)
    return {name: one for name, one in found.items() if not tied & {id(each) for each in one[0].parameters()}}


def plan_in_code(model: nn.Module, reference: Reference | None) -> dict[str, str] | None:
    """Return PyTorch's own styles in code, by the names of a plan; None for a plan that is not made of names.

    Left out is what the model has no layers for, and what stays whole.
    """
    divided = divided_layers(model, reference)
    used = {pattern: style for pattern, style in plan_of(model, reference).items() if set(_matching(pattern, divided))}
    if not all(isinstance(style, str) for style in used.values()):
        return None
    return {pattern: styles()[style].code for pattern, style in used.items()}


def tensor_parallel(model: nn.Module, mesh: "DeviceMesh", reference: Reference | None) -> nn.Module:
    """Divide the layers of a model as a plan says."""
    from torch.distributed.tensor.parallel import parallelize_module  # noqa: PLC0415 - it takes a second

    known = styles()
    plan = {
        name: known[style].make() if isinstance(style, str) else style
        for name, (_, style) in divided_layers(model, reference).items()
    }
    # Every rank has the same values, or none yet: nothing has to be sent.
    return parallelize_module(model, mesh, plan, src_data_rank=None)


def tensor_parallel_dimensions(model: nn.Module, reference: Reference | None) -> dict[str, int | None]:
    """Return the dimension along which each parameter of the divided layers is divided, by its name."""
    return {
        f"{path}.{name}": dimension
        for path, (module, style) in divided_layers(model, reference).items()
        for name, dimension in _dimensions(path, module, style).items()
    }


def objection_to_plan(model: nn.Module, reference: Reference | None, ranks: int) -> str | None:
    """Return, in a line, why so many ranks cannot follow a plan; None if they can."""
    try:
        layers = divided_layers(model, reference)
    except ValueError as error:
        return f"{error}; use --parallelism fsdp, or give another plan with --tp-plan"
    return next(_uneven(model, layers, ranks), None)


def divides_heads(model: nn.Module, reference: Reference | None) -> bool:
    """Return True if a plan gives each rank the keys and values of some heads."""
    layers = divided_layers(model, reference)
    return any(name.rpartition(".")[2] in KEYS_AND_VALUES and _is_local(style) for name, (_, style) in layers.items())


def _uneven(model: nn.Module, layers: Mapping[str, tuple[nn.Module, Any]], ranks: int) -> Iterator[str]:
    if any(name.rpartition(".")[2] in HEADS and _is_local(style) for name, (_, style) in layers.items()):
        for name, heads in _heads(model).items():
            if heads % ranks:
                yield f"{ranks:,} ranks cannot divide {heads:,} heads ({name}) evenly; give --ranks a divisor of that"
    for path, (module, _) in layers.items():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.is_contiguous():
                yield f"{path}.{name} is not contiguous, and cannot be divided; leave it out of the plan"
    for path, (module, style) in layers.items():
        dimension = _dimensions(path, module, style).get("weight")
        if dimension is None or not _is_local(style):
            continue
        if (size := module.get_parameter("weight").shape[dimension]) % ranks:
            what = "rows" if dimension == 0 else "columns"
            yield (
                f"{ranks:,} ranks cannot divide the {size:,} {what} of {path}.weight evenly; give --ranks "
                f"a divisor of that"
            )


def _heads(model: nn.Module) -> dict[str, int]:
    """Return the numbers of heads in a configuration of transformers, by their names."""
    config: Any = getattr(model, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    names = ("num_attention_heads", "num_key_value_heads")
    return {name: count for name in names if isinstance(count := getattr(config, name, None), int)}


def _dimensions(name: str, module: nn.Module | None, style: Any) -> Mapping[str, int | None]:
    """Return the dimension of each parameter of a layer. Raises `ValueError`, in a line, if it cannot be divided."""
    kind = styles()[style].kind if isinstance(style, str) and style in styles() else _kind_of_own(style)
    if kind is None:
        raise ValueError(
            f"the plan gives {name} the style {style!r}, which PyTorch does not have; choose from {', '.join(styles())}"
        )
    if kind == AROUND:
        return {}
    if kind == SEQUENCE:
        return {one: None for one, _ in module.named_parameters(recurse=False)} if module else {}
    for layer in (nn.Linear, nn.Embedding):
        if isinstance(module, layer):
            return {one: at for one, at in DIMENSIONS[layer, kind].items() if getattr(module, one, None) is not None}
    what = f"a {type(module).__name__}" if module else "a parameter"
    raise ValueError(
        f"the plan divides {name}, which is {what}; leave it out: PyTorch divides nn.Linear and nn.Embedding"
    )


def _kind_of_own(style: object) -> str | None:
    """Return the kind of one of PyTorch's own styles; None of others."""
    from torch.distributed.tensor import parallel  # noqa: PLC0415 - it takes a second

    kinds: tuple[tuple[type[Any], str], ...] = (
        (parallel.ColwiseParallel, COLUMNS),
        (parallel.RowwiseParallel, ROWS),
        (parallel.SequenceParallel, SEQUENCE),
        (parallel.PrepareModuleInput, AROUND),
        (parallel.PrepareModuleOutput, AROUND),
    )
    return next((name for kind, name in kinds if isinstance(style, kind)), None)


def _is_local(style: Any) -> bool:
    """Return True if a rank goes on with a part of the layer's outputs, or inputs."""
    if isinstance(style, str):
        return styles()[style].is_local
    kind = _kind_of_own(style)
    layouts = style.output_layouts if kind == COLUMNS else style.input_layouts if kind == ROWS else ()
    return not all(layout.is_replicate() for layout in layouts)


def _matching(pattern: str, names: Mapping[str, object]) -> list[str]:
    """Return the names that a pattern means: a `*` stands for one part of a name."""
    parts = pattern.split(".")
    return [
        name for name in names if name.count(".") == len(parts) - 1 and all(map(fnmatchcase, name.split("."), parts))
    ]


def _tied(model: nn.Module) -> set[int]:
    """Return the identities of parameters with several names."""
    seen: set[int] = set()
    return {
        id(one)
        for _, one in model.named_parameters(remove_duplicate=False)
        if id(one) in seen or seen.add(id(one))  # type: ignore[func-returns-value]
    }


def _some(modules: Mapping[str, nn.Module]) -> str:
    names = [name for name, module in modules.items() if isinstance(module, nn.Linear | nn.Embedding)]
    return f"{', '.join(names[:4])}{' and others' if names[4:] else ''}" if names else "no layers to divide"
