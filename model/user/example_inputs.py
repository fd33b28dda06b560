"""Example inputs for models of transformers and diffusers, from the sizes in their configurations."""

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

TOKENS = 8
# Sizes where any will do: the side of an image, samples of sound, frames of a spectrogram, the side of a latent.
PIXELS, SAMPLES, FRAMES, LATENTS = 224, 4000, 64, 64


@dataclass(frozen=True)
class ExampleInput:
    """A tensor for an argument: integers below `below` in turn, or values between -1 and 1 if that is 0."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    below: int = 0

    def tensor(self) -> Tensor:
        """Make the tensor, without random numbers."""
        steps = torch.arange(math.prod(self.shape)).reshape(self.shape)
        return steps % self.below if self.below else (steps % 17 / 8 - 1).to(self.dtype)


def example_inputs(model: nn.Module) -> tuple[ExampleInput, ...]:
    """Return inputs that a model on meta takes; none if it takes none of the candidates.

    A candidate that an operation refuses is the last resort: some operations need values, or support less on meta.
    """
    untried: tuple[ExampleInput, ...] = ()
    for candidate in _candidates(model):
        try:
            with torch.inference_mode():
                model(**{one.name: one.tensor().to("meta") for one in candidate})
        except RuntimeError:
            untried = untried or candidate
        except Exception:  # noqa: BLE001, S112 - whatever the model itself raises
            continue
        else:
            return candidate
    return untried


def _candidates(model: Any) -> Iterator[tuple[ExampleInput, ...]]:
    """Yield the main input of the model, then all inputs that it may take; each with the input of a decoder."""
    parameters = inspect.signature(model.forward).parameters
    made = {one.name: one for one in _known(model) if one.name in parameters}
    decoder = tuple(made.pop(name) for name in ("decoder_input_ids",) if name in made)
    main = getattr(model, "main_input_name", None)
    for names in ((main,), made.keys()):
        chosen = tuple(made[name] for name in names if name in made)
        if chosen:
            yield (*chosen, *decoder)


def _known(model: Any) -> Iterator[ExampleInput]:
    """Yield every input whose sizes the configuration has."""
    config = model.config
    sections = [config, *(getattr(config, name, None) for name in getattr(config, "sub_configs", ()))]

    def sizes(*names: str) -> list[Any]:
        return [one for section in sections for name in names if (one := getattr(section, name, None))]

    dtype = next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)
    if vocabularies := sizes("vocab_size"):
        tokens = min([TOKENS, *(one for one in sizes("max_position_embeddings", "n_positions") if one > 0)])
        yield ExampleInput("input_ids", (1, tokens), torch.int64, min(vocabularies))
        if getattr(config, "is_encoder_decoder", False):
            yield ExampleInput("decoder_input_ids", (1, tokens), torch.int64, min(vocabularies))
    for name, shape in _shapes(sizes):
        yield ExampleInput(name, shape, dtype)
    yield ExampleInput("timestep", (1,), torch.int64, 1)


def _shapes(sizes: Callable[..., list[Any]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes of floating-point inputs."""
    [channels, *_], [side, *_] = [*sizes("num_channels", "in_channels"), 3], [*sizes("image_size"), PIXELS]
    frames = sizes("num_frames")[:1]
    yield "pixel_values", (1, *frames, channels, *_square(side))
    if (bins := sizes("num_mel_bins")) and (positions := sizes("max_source_positions")):
        yield "input_features", (1, bins[0], 2 * positions[0])
    elif features := sizes("input_feat_per_channel", "feature_projection_input_dim"):
        yield "input_features", (1, FRAMES, features[0])
    if bins and (length := sizes("max_length")):
        yield "input_values", (1, length[0], bins[0])
    else:
        yield "input_values", (1, *sizes("audio_channels")[:1], SAMPLES)
    if latents := sizes("sample_size"):
        yield "sample", (1, channels, *(min(one, LATENTS) for one in _square(latents[0])))
    if wide := sizes("cross_attention_dim"):
        yield "encoder_hidden_states", (1, TOKENS, wide[0])


def _square(side: Any) -> tuple[int, int]:
    """Return the height and the width."""
    height, width = side if isinstance(side, list | tuple) else (side, side)
    return height, width
