"""The layout of torch.distributed.checkpoint: a folder of files, and metadata with the place of each tensor."""

import pickle
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.layouts.files import Save, Saved, written


@dataclass(frozen=True)
class DcpSettings:
    """The settings that a checkpoint is saved with: they decide which bytes a load reads.

    A load reads every saved piece that it needs a part of, whole. `ranks` saved it, each its own pieces.
    `in_background` stands for `async_save`, which writes the same files. With `to_lowest_rank` the lowest rank saves
    what several have; else whichever has the fewest bytes. Each rank wrote one file, or `one_file_each_tensor`, by
    `threads`.
    """

    ranks: int = 1
    in_background: bool = False
    to_lowest_rank: bool = False
    threads: int = 1
    one_file_each_tensor: bool = False

    def as_record(self) -> dict[str, int | bool]:
        """Return them by their names in torch.distributed.checkpoint.

        Its `dedup_replicated_tensors` is not among them: it has no effect in torch 2.13.
        """
        return {
            "ranks": self.ranks,
            "async": self.in_background,
            "dedup_save_to_lowest_rank": self.to_lowest_rank,
            "thread_count": self.threads,
            "single_file_per_rank": not self.one_file_each_tensor,
        }


SAVED = DcpSettings()
# Of a plan: holes in place of the bytes.
PLANNED = replace(SAVED, one_file_each_tensor=True)


def save_dcp(state_dict: dict[str, Any], folder: Path, save: Save[Saved]) -> dict[str, Saved]:
    """Save by torch.distributed.checkpoint as `SAVED` says: without a process group, a file and its metadata."""
    from torch.distributed.checkpoint import FileSystemWriter, state_dict_saver  # noqa: PLC0415 - half a second
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner  # noqa: PLC0415

    writer = FileSystemWriter(
        folder / "dcp", single_file_per_rank=not SAVED.one_file_each_tensor, thread_count=SAVED.threads
    )
    planner = DefaultSavePlanner(dedup_save_to_lowest_rank=SAVED.to_lowest_rank)
    with warnings.catch_warnings():
        # It warns that there is no process group, as `no_dist` asks.
        warnings.simplefilter("ignore", UserWarning)
        state_dict_saver.save(dict(state_dict), storage_writer=writer, planner=planner, no_dist=True)
    return written(folder / "dcp", folder, save)


def save_sparse_dcp(state_dict: dict[str, Any], folder: Path, save: Save[Saved]) -> dict[str, Saved]:
    """Save fake tensors for torch.distributed.checkpoint as `PLANNED` says, with holes for the bytes."""
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner  # noqa: PLC0415 - half a second
    from torch.distributed.checkpoint.filesystem import _StorageInfo  # noqa: PLC0415

    planner = DefaultSavePlanner(dedup_save_to_lowest_rank=PLANNED.to_lowest_rank)
    planner.set_up_planner(state_dict, is_coordinator=True)
    plans, metadata = planner.create_global_plan([planner.create_local_plan()])
    (folder / "dcp").mkdir()
    saved, metadata.storage_data = {}, {}
    for number, item in enumerate(plans[0].items):
        file = folder / "dcp" / f"{number}.distcp"
        saved[f"dcp/{file.name}"] = save(state_dict[item.index.fqn], file)
        metadata.storage_data[item.index] = _StorageInfo(file.name, 0, file.stat().st_size)
    (folder / "dcp" / ".metadata").write_bytes(pickle.dumps(metadata))
    return saved
