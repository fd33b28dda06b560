import torch


def transformers(build, path, device):
    """Let the library build and fill a model of the class and the configuration that the skeleton has."""
    with torch.device("meta"):
        skeleton = build()
    return type(skeleton).from_pretrained(
        path.parent,
        config=skeleton.config,
        # Beside a checkpoint of its own lies a file that says this.
        generation_config=skeleton.generation_config,
        device_map={"": device},
    )
