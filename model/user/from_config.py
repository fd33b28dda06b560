"""Models from a `config.json`, built by a class of transformers or diffusers.

Nothing is downloaded, and code beside a configuration is never run.
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from model.examine.limits import ReadAllowance, json_bytes
from model.examine.saved_file import open_regular
from model.examine.trust import one_line
from model.examine.zip_directory import MalformedFile, pread
from model.installation import pip_install
from model.printable import printable
from model.user.user_code import naming_failures

# The first major version whose models list the parameters that stay in float32.
LEAST_TRANSFORMERS = 5

# Bytes of a file: the longest list labels, of 20 bytes each, and no data set has more than three million labels.
MOST_BYTES = 64 * 2**20
# More layers and labels than any model has.
LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_encoder_layers", "num_decoder_layers")
MOST = dict.fromkeys((*LAYERS, "encoder_layers", "decoder_layers"), 100_000) | {"num_labels": 10_000_000}


class NoClass(ValueError):
    """No installed library builds the model of a sound configuration: `reason` says why, in a few words."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message, reason)
        self.message, self.reason = message, reason

    def __str__(self) -> str:
        return self.message

    def of(self, display_name: str) -> "NoClass":
        """Return the same, with the name of the configuration."""
        return NoClass(f"{display_name}: {self.message}", self.reason)


@dataclass(frozen=True, eq=False)
class FromConfig:
    """Builds a model of `model_class` from `config`, as its `from_pretrained` does before it loads."""

    model_class: Any
    config: Any

    def __call__(self) -> nn.Module:
        """Build a new model with random weights, in evaluation mode."""
        config = deepcopy(self.config)
        with _alone():
            if isinstance(config, dict):
                built: nn.Module = self.model_class.from_config(config)
            else:
                built = self.model_class._from_config(config, dtype=self.dtype)  # noqa: SLF001 - `from_config` is of auto classes alone
                _keep_in_float32(built, self.dtype)
        return built.eval()

    @property
    def library(self) -> str:
        """The package that has the class."""
        return str(self.model_class.__module__).partition(".")[0]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the configuration names; float32 where it names none."""
        dtype = getattr(self.config, "dtype", None) or torch.float32
        return getattr(torch, dtype) if isinstance(dtype, str) else dtype


def from_config(file: Path) -> FromConfig:
    """Read a configuration.

    Raises `NoClass`, in a line, if no installed library has its model, and `ValueError` if it is not sound.
    """
    try:
        described = _read(file)
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from None
    except MalformedFile as error:
        raise ValueError(f"it {error}") from None
    _require_few(described)
    if "_class_name" in described:
        _, model_class = _class("diffusers", "ModelMixin", described["_class_name"], described)
        return FromConfig(model_class, described)
    return _of_transformers(file, described)


def _read(file: Path) -> dict[str, Any]:
    """Return the JSON object in a regular file; of a key that is there twice the last counts, as for transformers.

    Raises `OSError`, or `MalformedFile`, whose message follows "it".
    """
    with open_regular(file, follow=True) as opened:
        if (size := os.fstat(opened.fileno()).st_size) > MOST_BYTES:
            raise MalformedFile(
                f"is too large for a configuration: it has {size:,} bytes of at most {MOST_BYTES:,}; name another file"
            )
        content = pread(opened.fileno(), size, 0)
    if (needed := json_bytes(content)) > (most := ReadAllowance.of(size).left):
        raise MalformedFile(
            f"is too large for a configuration: it takes {needed / 2**20:,.0f} MiB of memory of at most "
            f"{most >> 20:,}; "
            f"name another file"
        )
    try:
        described = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise MalformedFile(f"is not JSON ({one_line(str(error))}); correct it, or download it again") from None
    if not isinstance(described, dict):
        raise MalformedFile(
            f"is no configuration: it has a {type(described).__name__}, not an object; correct it, or download it again"
        )
    return described


def _require_few(described: dict[str, Any]) -> None:
    """Raise `ValueError` for counts in a configuration, or in one within it, that would take hours to build."""
    left: list[object] = [described]
    while left:
        one = left.pop()
        if not isinstance(one, dict):
            continue
        for name in MOST.keys() & one.keys():
            if type(count := one[name]) is int and count > MOST[name]:
                raise ValueError(f"its {name} is {printable(count)}, above the limit of {MOST[name]:,}; correct it")
        left += one.values()


def _of_transformers(file: Path, described: Mapping[str, Any]) -> FromConfig:
    _require_unquantised(described)
    names = described.get("architectures")
    if not (isinstance(names, list) and names):
        raise NoClass(
            'it names no architecture; add one, such as "architectures": ["LlamaForCausalLM"]',
            "it names no architecture",
        )
    library, model_class = _class("transformers", "PreTrainedModel", names[0], described)
    if model_class.config_class is None:
        raise ValueError(f"its architecture {names[0]} is the base of all models; name the class of this model")
    kind = described.get("model_type")
    own = model_class.config_class.model_type
    if kind is not None and kind != own and not (isinstance(kind, str) and kind in library.CONFIG_MAPPING):
        raise _unknown(library, "model_type", kind, described)
    with naming_failures(f"it is no configuration of {names[0]}"), _alone():
        return FromConfig(model_class, model_class.config_class.from_pretrained(str(file), local_files_only=True))


def _require_unquantised(described: Mapping[str, Any]) -> None:
    # That of a part, such as the text model beside a vision model, is in the configuration of the part.
    sections = [described, *(one for one in described.values() if isinstance(one, dict))]
    for settings in (one["quantization_config"] for one in sections if one.get("quantization_config") is not None):
        method = settings.get("quant_method") if isinstance(settings, dict) else None
        raise NoClass(
            "the model is quantised (quantization_config); write a function that builds it, or plan it from its "
            ".safetensors files: --plan, with the folder as --model",
            f"it is quantised by {printable(method)}" if isinstance(method, str) else "it is quantised",
        )


def _class(package: str, kind: str, name: object, described: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return a package, and its class of a name, which has to be a subclass of `kind`."""
    text = one_line(str(name))
    try:
        library: Any = import_module(package)
    except ImportError as error:
        message = f"{text} needs {package}, which cannot be imported ({error}); run {pip_install('models')}"
        raise NoClass(message, f"{package} cannot be imported") from None
    if package == "transformers" and int(library.__version__.partition(".")[0]) < LEAST_TRANSFORMERS:
        raise NoClass(
            f"{text} needs transformers {LEAST_TRANSFORMERS} or newer, and {library.__version__} is installed; run pip "
            f"install 'transformers>={LEAST_TRANSFORMERS}'",
            f"transformers {library.__version__} is too old",
        )
    found = None
    if isinstance(name, str):
        with naming_failures(f"{text} of {package} cannot be imported"):
            found = getattr(library, name, None)
    if isinstance(found, type) and issubclass(found, getattr(library, kind)):
        return library, found
    if backends := getattr(found, "_backends", None):
        needs = f"{text} of {package} needs {', '.join(backends)}"
        raise NoClass(f"{needs}; install it", needs)
    raise _unknown(library, "model", name, described)


def _unknown(library: Any, what: str, name: object, described: Mapping[str, Any]) -> NoClass:
    code = ", and code beside a configuration is never run" if "auto_map" in described else ""
    has_none = f"{library.__name__} {library.__version__} has no {what} {one_line(repr(name))}"
    return NoClass(f"{has_none}{code}; write a function that builds the model", f"{has_none}{code}")


def _keep_in_float32(model: Any, dtype: torch.dtype) -> None:
    """Convert the parameters to float32 that `from_pretrained` keeps in it, whatever dtype the others have."""
    # The latter is that of the first versions 5.
    plan = model._get_dtype_plan(dtype) if hasattr(model, "_get_dtype_plan") else model.dtype_plan  # noqa: SLF001 - the one place that knows
    kept = [re.compile(glob.replace("*", ".*")) for glob in plan]
    for name, parameter in model.named_parameters():
        if any(pattern.search(name) for pattern in kept):
            parameter.data = parameter.data.float()


@contextmanager
def _alone() -> Iterator[None]:
    """Keep libraries from using the hub and from printing advice in this block.

    Some read the environment each time, and some did when they were imported.
    """
    constants = import_module("huggingface_hub.constants")
    log = logging.getLogger("transformers")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with patch.dict(os.environ, HF_HUB_OFFLINE="1"), patch.object(constants, "HF_HUB_OFFLINE", True):
            yield
    finally:
        log.setLevel(level)
