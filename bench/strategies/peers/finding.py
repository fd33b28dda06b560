"""Ways in which loaders of other projects find the files of a checkpoint: a path may get what lies beside it."""

from model.user.source import Source

# What transformers looks for in a folder, in this order.
TRANSFORMERS_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def by_path(_: Source) -> bool:
    """Return whether a loader that opens what it is given finds a user's checkpoint: it does."""
    return True


def by_suffix(source: Source) -> bool:
    """Return the same of a loader that takes a file for what its suffix says, as accelerate does."""
    index = source.files[:1] if source.layout.endswith("_sharded") else ()
    safe = [file.suffix == ".safetensors" for file in source.files if file not in index]
    wanted = source.layout.startswith("safetensors")
    return all(file.suffix == ".json" for file in index) and all(one == wanted for one in safe)


def by_name(source: Source) -> bool:
    """Return the same of transformers, which takes of a folder the first that has one of its names."""
    there = [name for name in TRANSFORMERS_NAMES if (source.path.parent / name).is_file()]
    return there[:1] == [source.path.name]


def by_folder(source: Source) -> bool:
    """Return the same of a loader that reads all .safetensors files of a folder."""
    return set(source.path.parent.glob("*.safetensors")) <= set(source.files)
