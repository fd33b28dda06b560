import torch


def transformers(build, path, device, *, dtype=None, missing=()):  # noqa: ARG001 - it finds out by itself
    """Let the library build and fill a model of the class and the configuration that the skeleton has.

    `dtype`: what the weights are cast to; None: to that of the skeleton. What is `missing` it initialises.
    """
    with torch.device("meta"):
        skeleton = build()
    return type(skeleton).from_pretrained(
        path.parent,
        config=skeleton.config,
        # Beside a checkpoint of its own lies a file that says this, of a model that generates text.
        generation_config=getattr(skeleton, "generation_config", None),
        dtype=dtype or skeleton.dtype,
        device_map={"": device},
    )
