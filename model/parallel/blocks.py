"""Repeated blocks of a model, which FSDP2 shards and gathers one by one."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from torch import nn

# Names of tensors that are divided together, in that order.
Units = Sequence[Sequence[str]]


def blocks(model: nn.Module, classes: Sequence[str] = ()) -> dict[str, nn.Module]:
    """Return the outermost repeated blocks of a model, by their names; none if nothing repeats.

    They are the modules of `classes`, or without any the entries of a list or a sequence whose class repeats there.
    """
    return dict(_of_classes(model, classes, "") if classes else _repeated(model, ""))


def blocks_in_words(model: nn.Module, classes: Sequence[str] = ()) -> str:
    """Return the classes of the blocks with their numbers: `LlamaDecoderLayer x 80`; "" if there are none."""
    counts = Counter(type(block).__name__ for block in blocks(model, classes).values())
    return ", ".join(f"{name} x {count}" for name, count in counts.items())


def block_lists(model: nn.Module, classes: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """Return the modules that hold the blocks, by their names, with the classes of the blocks in each.

    None are named where all that a module holds is a block.
    """
    lists: dict[str, list[str]] = {}
    found = blocks(model, classes)
    for path, block in found.items():
        lists.setdefault(path.rpartition(".")[0], []).append(type(block).__name__)
    return {
        path: () if len(names) == len(list(model.get_submodule(path).children())) else tuple(dict.fromkeys(names))
        for path, names in lists.items()
    }


def block_units(model: nn.Module, found: Mapping[str, nn.Module]) -> Units:
    """Return the names of the tensors of each block, buffers included, then all others."""
    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    units = [[name for name in names if name.startswith(f"{path}.")] for path in found]
    inside = {name for unit in units for name in unit}
    return [*units, [name for name in names if name not in inside]]


def tied_across(model: nn.Module, found: Mapping[str, nn.Module]) -> tuple[str, str] | None:
    """Return two names of one parameter that are in two blocks, or in a block and outside; None if there are none."""
    first: dict[int, tuple[str, str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        block = next((path for path in found if name.startswith(f"{path}.")), "")
        other, place = first.setdefault(id(parameter), (name, block))
        if place != block:
            return other, name
    return None


def _of_classes(module: nn.Module, classes: Sequence[str], path: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        inner = f"{path}.{name}".lstrip(".")
        if type(child).__name__ in classes:
            yield inner, child
        else:
            yield from _of_classes(child, classes, inner)


def _repeated(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    entries = dict(module.named_children())
    counts = Counter(map(type, entries.values()))
    is_list = isinstance(module, nn.Sequential | nn.ModuleList)
    for name, child in entries.items():
        inner = f"{path}.{name}".lstrip(".")
        # A layer of PyTorch's own has no modules in it, and is a part of a block.
        if is_list and _is_block(child) and (counts[type(child)] > 1 or len(entries) == 1):
            yield inner, child
        else:
            yield from _repeated(child, inner)


def _is_block(module: nn.Module) -> bool:
    is_list = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
    return not is_list and any(True for _ in module.children()) and any(True for _ in module.parameters())
