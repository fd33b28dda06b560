"""Sizes of a model if it were quantised or divided among ranks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor, nn

from bench.measure.case import Case
from bench.measure.planning import reserved_bytes
from model.architecture import DTYPES
from model.casting import cast_dtypes, retyped

# Tensors that stay as they are in quantised models: rows are looked up in embeddings, and convolutions are few.
_KEPT = (nn.Embedding, nn.modules.conv._ConvNd)  # noqa: SLF001 - the base of all convolutions has no other name
BITS_OF_A_BYTE = 8


@dataclass(frozen=True)
class DivisibleBytes:
    """Bytes of a model: those that FSDP divides among ranks, and those that each rank holds `whole`: its buffers.

    `sizes` are those of the tensors that are divided, and `whole_sizes` those of the others; empty: not known.
    """

    divided: int
    whole: int
    sizes: tuple[int, ...] = ()
    whole_sizes: tuple[int, ...] = ()

    def of_rank(self, ranks: int) -> int:
        """Return S/N + B: what one of some ranks holds, the first if it is one more element than others."""
        return -(-self.divided // ranks) + self.whole

    def reserved_of_rank(self, ranks: int) -> int:
        """Return what the allocator of a device takes for that, as far as the sizes of its tensors are known."""
        sizes = [*(-(-size // ranks) for size in self.sizes), *self.whole_sizes]
        return max(self.of_rank(ranks), reserved_bytes(sizes))


def divisible(case: Case) -> DivisibleBytes:
    """Return the bytes that ranks would divide."""
    footprint, model = case.specification.footprint, case.specification.architecture.skeleton()
    names = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    ends = _ends(case, model)
    buffers = {name: tensor for name, tensor in ends.items() if name in names}
    whole = _nbytes(buffers.values()) + footprint.nonpersistent_bytes
    return DivisibleBytes(
        footprint.state_bytes + footprint.nonpersistent_bytes - whole,
        whole,
        _sizes(tensor for name, tensor in ends.items() if name not in names),
        (*_sizes(buffers.values()), footprint.nonpersistent_bytes),
    )


def _sizes(tensors: Iterable[Tensor]) -> tuple[int, ...]:
    return tuple(storage.nbytes() for storage in dict.fromkeys(one.untyped_storage() for one in tensors))


def quantised(case: Case, bits: int) -> DivisibleBytes:
    """Return the bytes of a model whose linear weights have so many bits a number, and whose other tensors stay.

    Linear weights are those of `nn.Linear`, and the matrices of repeated blocks, such as experts. An embedding stays,
    and a head that shares its memory or is the model's output. Scales of groups come on top, some percent.
    """
    model = case.specification.architecture.skeleton()
    names = set(_linear_weights(model))
    linear = {name: tensor for name, tensor in _ends(case, model).items() if name in names}
    count = sum({tensor.untyped_storage(): tensor.numel() for tensor in linear.values()}.values())
    sizes = divisible(case)
    kept = sizes.divided - _nbytes(linear.values())
    return replace(sizes, divided=kept + -(-count * bits // BITS_OF_A_BYTE), sizes=(), whole_sizes=())


def _ends(case: Case, model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a model as a load ends."""
    state = model.state_dict()
    if case.user_model:
        state = retyped(state, dict(case.user_model.conversion.dtypes))
    ends = retyped(state, cast_dtypes(state, DTYPES.get(case.cast)))
    return {name: value for name, value in ends.items() if isinstance(value, Tensor)}


def _nbytes(tensors: Iterable[Tensor]) -> int:
    return sum({one.untyped_storage(): one.untyped_storage().nbytes() for one in tensors}.values())


def _linear_weights(model: nn.Module) -> Iterator[str]:
    kept = _embedded(model)
    for path, module in model.named_modules():
        if isinstance(module, _KEPT):
            continue
        in_block = any(part.isdecimal() for part in path.split("."))
        for name, parameter in module.named_parameters(recurse=False):
            is_matrix = parameter.dim() > 1 and (in_block or isinstance(module, nn.Linear))
            if is_matrix and parameter.is_floating_point() and id(parameter) not in kept:
                yield f"{path}.{name}".lstrip(".")


def _embedded(model: nn.Module) -> set[int]:
    """Return the parameters of embeddings, and of what a library calls the output embedding."""
    output = getattr(model, "get_output_embeddings", lambda: None)()
    modules: list[nn.Module] = [one for one in model.modules() if isinstance(one, nn.Embedding)]
    modules += [output] if isinstance(output, nn.Module) else []
    return {id(one) for module in modules for one in module.parameters()}
