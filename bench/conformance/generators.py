"""Hypothesis' generators of specimens: models with some features, and checkpoints that do not fit theirs."""

from collections.abc import Collection, Sequence
from math import prod

from hypothesis import strategies as st

from bench.conformance.blueprint import A_TENSOR, Blueprint, PlaceName, Stored, View
from bench.conformance.misfits import MISFITS, MisfitCheckpoint
from bench.conformance.specimens import ManyTensors, Transformer
from bench.conformance.stateful_modules import StatefulModel
from model.gpt2 import Config

OTHER_DTYPES = (
    *("float16", "bfloat16", "float64", "float8_e4m3fn", "float8_e5m2", "complex64", "complex128"),
    *("int8", "uint8", "int16", "int32", "int64", "uint16", "bool"),
)
TRAINABLE = ("float32", "float16", "bfloat16", "float64", "complex64", "complex128")

MODULES = ("block", "layer", "head")
# Methods of a module, which an assignment makes names of submodules, and what file systems and shells stumble over.
AWKWARD_MODULES = ("half", "train", "type", "a b", "/etc", "ä", "~", "%2e", "CON")
# A file's name holds 255 bytes, of which a character takes up to 12.
UNUSUAL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="."), min_size=1, max_size=4)

# Paths of tensors, whose own names have no number yet.
OWN_NAMES = st.sampled_from(["weight", "bias"])
PATHS = st.builds(
    lambda modules, own: ".".join([*modules, own]), st.lists(st.sampled_from(MODULES), max_size=3), OWN_NAMES
)
AWKWARD_PATHS = st.builds(
    lambda modules, own: ".".join([*modules, own]),
    st.lists(st.sampled_from([*AWKWARD_MODULES, *MODULES]), max_size=3),
    UNUSUAL.map("{}_".format) | OWN_NAMES,
)

EXTRA_STATES = (7, "text", {"step": 3}, [1, 2.5], A_TENSOR)

FEATURE_ORDERS = {"strides": ("transposed", "channels_last"), "gaps": ("every second",)}

# What a model may have beside float32 parameters; see `PROPERTIES` for what each is.
FEATURES = (
    *("dtypes", "buffers", "nonpersistent", "ties", "views", "frozen", "empty", "strides", "gaps"),
    *("values", "names", "extra_state"),
)


@st.composite
def blueprints(draw: st.DrawFn, features: Collection[str], needed: str | None = None) -> Blueprint:
    """Models that may have `features`, and have `needed`."""
    tensors: list[Stored | View] = [draw(_stored(features, needed))]
    tensors += draw(st.lists(_stored(features), max_size=4))
    if needed == "views" or ("views" in features and draw(st.booleans())):
        tensors.append(draw(_views(tensors)))
    names = draw(_names(features, needed, tensors))
    modules = st.sampled_from(sorted({name.path.rpartition(".")[0] for name in names} | {""}))
    extra, evaluating = [], []
    if "extra_state" in features:
        described = draw(st.lists(modules, min_size=needed == "extra_state", max_size=2, unique=True))
        extra = [(module, draw(st.sampled_from(EXTRA_STATES))) for module in described]
    if "frozen" in features:
        evaluating = draw(st.lists(modules, max_size=2, unique=True))
    return Blueprint(tuple(tensors), names, tuple(extra), tuple(evaluating))


@st.composite
def _stored(draw: st.DrawFn, features: Collection[str], needed: str | None = None) -> Stored:
    def has(feature: str) -> bool:
        return needed == feature or (feature in features and draw(st.booleans()))

    dtype = draw(st.sampled_from(OTHER_DTYPES)) if has("dtypes") else "float32"
    orders = [order for feature, orders in FEATURE_ORDERS.items() if has(feature) for order in orders]
    order = draw(st.sampled_from(orders or ["contiguous"]))
    dimensions, least = {"contiguous": (1, 1), "transposed": (2, 2), "channels_last": (4, 2), "every second": (1, 2)}[
        order
    ]
    shape = tuple(draw(st.lists(st.integers(least, 4), min_size=dimensions, max_size=max(dimensions, 3))))
    if order == "contiguous" and has("empty"):
        shape = draw(st.sampled_from([(), (0,), (2, 0), (0, 3)]))
    buffer = needed in ("buffers", "nonpersistent")
    if not buffer and needed not in ("ties", "frozen") and not {"buffers", "nonpersistent"}.isdisjoint(features):
        buffer = draw(st.booleans())
    trained = dtype in TRAINABLE and not buffer and not has("frozen")
    return Stored(dtype, shape, order, not buffer, trained, has("values"))


def _views(tensors: Sequence[Stored | View]) -> st.SearchStrategy[View]:
    """Views of one of these, of its tail only where its elements lie one after the other."""

    def views_of(index: int) -> st.SearchStrategy[View]:
        tensor = tensors[index]
        assert isinstance(tensor, Stored)
        has_tail = tensor.order == "contiguous" and prod(tensor.shape) > 1
        return st.builds(
            View,
            st.just(index),
            st.booleans() if has_tail else st.just(value=True),
            st.booleans() if tensor.dtype in TRAINABLE else st.just(value=False),
        )

    return st.integers(0, len(tensors) - 1).flatmap(views_of)


@st.composite
def _names(
    draw: st.DrawFn, features: Collection[str], needed: str | None, tensors: Sequence[Stored | View]
) -> tuple[PlaceName, ...]:
    """Names of all tensors, in any order, several of some; and of none. Numbers make them differ."""
    paths = AWKWARD_PATHS if "names" in features else PATHS
    # What shares memory is in the checkpoint itself: else a value that no checkpoint has would come from a weight.
    shared = {index for index, tensor in enumerate(tensors) if isinstance(tensor, View)}
    shared |= {tensor.of for tensor in tensors if isinstance(tensor, View)}
    names = []
    for index, tensor in enumerate(tensors):
        wanted = needed if index == 0 else None
        ties = ("ties", "views") if tensor.parameter else ("views",)
        tied = any(wanted == kind == "ties" or (kind in features and draw(st.booleans())) for kind in ties)
        loose = not tensor.parameter and index not in shared
        loose &= wanted == "nonpersistent" or ("nonpersistent" in features and draw(st.booleans()))
        drawn = draw(st.lists(paths, min_size=2, max_size=3)) if tied else [draw(paths)]
        names += [PlaceName(path, index, not loose) for path in drawn]
    if "buffers" in features and draw(st.booleans()):
        names.append(PlaceName(draw(paths), None))
    ordered = draw(st.permutations(names))
    return tuple(PlaceName(f"{name.path}{place}", name.tensor, name.persistent) for place, name in enumerate(ordered))


def many_tensors() -> st.SearchStrategy[ManyTensors]:
    """Models of thousands of small tensors beside a huge one."""
    return st.builds(ManyTensors, st.integers(1000, 3000), st.integers(2**18, 2**22))


def stateful_models(kind: str) -> st.SearchStrategy[StatefulModel]:
    """Models of a kind of `stateful_modules.KINDS`."""
    return st.builds(StatefulModel, st.just(kind), st.integers(1, 6), st.integers(1, 3))


def transformers() -> st.SearchStrategy[Transformer]:
    """Small GPT-2s of any depth and width."""
    configs = st.builds(
        lambda heads, width, layers, vocabulary, context: Config(heads * width, layers, heads, vocabulary, context),
        *(st.integers(1, 3), st.integers(1, 8), st.integers(1, 3), st.integers(4, 40), st.integers(3, 9)),
    )
    return st.builds(Transformer, configs, st.sampled_from(["float32", "bfloat16", "float16"]), st.booleans())


@st.composite
def misfits(draw: st.DrawFn, kind: str) -> MisfitCheckpoint:
    """A model, and a checkpoint that is another's in one tensor."""
    needed = {"untied": "ties", "moved": "views"}.get(kind)
    features = {"buffers", "dtypes"} if needed is None else {"buffers", "dtypes", needed}
    model = draw(blueprints(features, needed).filter(MISFITS[kind].victims))
    return MisfitCheckpoint(model, kind, draw(st.sampled_from(MISFITS[kind].victims(model))))
