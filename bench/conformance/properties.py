"""Properties that a loader has to keep, and misfits that it has to refuse: the columns of the conformance table."""

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from bench.conformance.blueprint import Stored
from bench.conformance.generators import FEATURES, blueprints, many_tensors, misfits, stateful_models, transformers
from bench.conformance.pretrained_models import PRETRAINED
from bench.conformance.specimens import Specimen
from bench.strategies import Strategy


@dataclass(frozen=True)
class Property:
    """`specimens(refused)` draws models that have it, without the features that a loader is known to refuse.

    `share`: how many examples it gets, where most get one; large models take as long as many small ones.
    `fits`: whether the checkpoint is the model's, and has to be loaded; otherwise it has to be refused. `layout`: how
    the checkpoint lies on disk, where that is not the loader's own to say. `once`: see `judge`.
    """

    name: str
    meaning: str
    specimens: Callable[[frozenset[str]], st.SearchStrategy[Specimen]]
    share: float = 1.0
    fits: bool = True
    layout: str | None = None
    once: bool = False


def _one(*features: str) -> Callable[[frozenset[str]], st.SearchStrategy[Specimen]]:
    """Models that have the first of some features, and may have the others."""
    return lambda refused: blueprints({*features[:1], *(set(features) - refused)}, features[0] if features else None)


def _mixed(refused: frozenset[str]) -> st.SearchStrategy[Specimen]:
    return blueprints(set(FEATURES) - refused)


def _of_safetensors(refused: frozenset[str]) -> st.SearchStrategy[Specimen]:
    """Models that the format can hold."""
    held = set(FEATURES) - {"views", "strides", "gaps", "extra_state"} - refused
    return blueprints(held).filter(
        lambda model: all(isinstance(t, Stored) and t.dtype != "complex128" for t in model.tensors)
    )


def _stateful(kind: str, meaning: str) -> Property:
    return Property(kind, meaning, lambda _: stateful_models(kind))


def _misfit(kind: str, meaning: str) -> Property:
    return Property(kind, meaning, lambda _: misfits(kind), share=0.5, fits=False)


PROPERTIES = {
    row.name: row
    for row in (
        Property("plain", "float32 parameters in modules of any depth and width", _one()),
        Property("dtypes", "floats of all widths, float8, integers, booleans, complex numbers", _one("dtypes")),
        Property("buffers", "persistent buffers, and ones that are None", _one("buffers", "dtypes")),
        Property("nonpersistent", "buffers that no state dict holds", _one("nonpersistent", "buffers")),
        _stateful("attributes", "tensors that are attributes, in lists, dicts and other objects"),
        _stateful("derived", "buffers that are computed from persistent ones, and are in no state dict"),
        _stateful("rotary", "buffers as rotary models of transformers have them"),
        _stateful("recurrent", "layers that hold their weights by weak references: RNN, LSTM, GRU"),
        Property("ties", "parameters with two or three names, in any order", _one("ties", "dtypes")),
        Property("views", "tensors that are views of other tensors", _one("views", "buffers")),
        Property("frozen", "parameters without gradients, modules in evaluation mode", _one("frozen", "ties")),
        Property("empty", "tensors without dimensions or without elements", _one("empty", "buffers", "dtypes")),
        Property("strides", "transposed and channels-last tensors", _one("strides", "buffers", "dtypes")),
        Property("gaps", "tensors that skip elements of their memory", _one("gaps", "buffers", "dtypes")),
        Property("values", "NaNs, infinities, negative zeros, denormals", _one("values", "dtypes")),
        Property("names", "names with any character, and names of methods", _one("names", "buffers")),
        Property("optimizer", "an optimizer made before the load, which steps the loaded weights", _one()),
        Property("training", "an optimizer made after the load, which steps the weights of that load only", _one()),
        Property("memory", "several tensors, each in memory of its own", _one()),
        Property("extra_state", "extra state of modules", _one("extra_state")),
        # Large models take as long as many small ones, which are loaded twice and stepped.
        Property(
            "crowds", "thousands of small tensors beside a huge one", lambda _: many_tensors(), share=0.05, once=True
        ),
        Property(
            "gpt2", "GPT-2 of any depth and width, tied or not, and its logits", lambda _: transformers(), share=0.5
        ),
        Property("mixed", "all of these at once, except what the loader refuses", _mixed, share=6.0),
        Property("torch_sharded", "tensors in several files, with an index", _mixed, layout="torch_sharded"),
        Property(
            "safetensors_sharded",
            "tensors in several .safetensors files, with an index",
            _of_safetensors,
            layout="safetensors_sharded",
        ),
        _misfit("missing", "the checkpoint lacks a tensor"),
        _misfit("surplus", "the checkpoint has a tensor that the model lacks"),
        _misfit("dtype", "a tensor has another dtype"),
        _misfit("shape", "a tensor has a shape that would broadcast"),
        _misfit("untied", "the names of a tied tensor have different values"),
        _misfit("moved", "a view shows another part of its memory"),
    )
}


def columns(strategy: Strategy) -> list[str]:
    """The properties that a strategy can be tried for: it knows the layout that their checkpoints have.

    And models that have them, where it loads none but those of its own library.
    """
    if strategy.peer and strategy.peer.architecture:
        return [name for name in PROPERTIES if name in PRETRAINED]
    return [name for name, row in PROPERTIES.items() if row.layout in (None, *strategy.layouts)]
