import os
from contextlib import ExitStack, closing

import torch
from torch import distributed

from bench.strategies.reading.assign import load_extra_state, weights
from bench.strategies.reading.fit import require_fit, require_plain, with_tied_names
from bench.strategies.reading.memory import Ring
from bench.strategies.reading.read_checkpoint import files_of
from bench.strategies.reading.records import File, contents
from bench.strategies.reading.shards import batches, is_replicated, local, materialize, part, runs, skeleton_to_shard
from bench.strategies.reading.threads import Reader, started

# What is worth a call at least.
READ_BYTES = 4 * 2**20


def streamed(  # noqa: PLR0913 - options
    build, path, device, parallelize, *, dtype=None, ring=64 * 2**20, threads=None
):
    """Read, in threads, the bytes of this rank's shards straight to where they end, and no others.

    What every rank has whole is read by one, and broadcast. To CUDA bytes pass through `ring` bytes of page-locked
    memory, and where they are cast through host memory of their own.
    """
    device, threads = torch.device(device), threads or min(8, os.cpu_count() or 1)
    with ExitStack() as stack:
        files = [
            File(stack.enter_context(file.open("rb", buffering=0)), listed) for file, listed in files_of(path).items()
        ]
        model = skeleton_to_shard(build, dtype)
        require_plain(model)
        storages = {
            record: torch.UntypedStorage(record.end - record.start, device="meta")
            for file in files
            for record in file.records.values()
        }
        state_dict = contents(files, lambda record, dtype: (storages[record], dtype, "meta"))
        state_dict = with_tied_names(state_dict, model)
        require_fit(path, model, state_dict, dtype)

        parallelize(model)
        materialize(model, device)
        tensors = weights(model)
        replicated = {name: local(t) for name, t in tensors.items() if is_replicated(t)}
        readers = shared_out(replicated, distributed.get_world_size())
        mine = [name for name in tensors if readers.get(name, distributed.get_rank()) == distributed.get_rank()]
        reader = stack.enter_context(closing(Reader(files, direct=False)))
        casts = any(state_dict[name].dtype != t.dtype for name, t in tensors.items())
        if device.type == "cpu" and not casts:
            step, fill = READ_BYTES, reader.read_runs
        else:
            held = sum(local(t).numel() * state_dict[name].element_size() for name, t in tensors.items())
            passing = stack.enter_context(closing(Ring(reader, device, ring, held, threads)))
            step, fill = passing.step_bytes, passing.fill_runs
        records = {storage: record for record, storage in storages.items()}
        parts = (one for name in mine for one in parts_of(state_dict[name], tensors[name], records, step))
        finish = stack.enter_context(started(fill, parts, threads))
        finish(state_dict, storages)
    for name, t in replicated.items():
        distributed.broadcast(t, readers[name])
    load_extra_state(model, state_dict)
    return model


def shared_out(tensors, ranks):
    """Return which rank reads each of these tensors: the largest first, to whom has the fewest bytes by then."""
    taken, readers = [0] * ranks, {}
    for name, t in sorted(tensors.items(), key=lambda item: (-item[1].nbytes, item[0])):
        readers[name] = taken.index(min(taken))
        taken[readers[name]] += t.nbytes
    return readers


def parts_of(saved, tensor, records, step):
    """A read of a tensor's shard: a file, ranges of bytes, and the part of the shard that they are."""
    if not saved.is_contiguous():
        raise ValueError(f"a tensor of strides {saved.stride()} is saved: its shards are in no order in the file")
    record, itemsize = records[saved.untyped_storage()], saved.element_size()
    first = record.start + saved.storage_offset() * itemsize
    ranges = ((first + start, first + end) for start, end in runs(saved.shape, part(tensor), itemsize))
    flat, done = local(tensor).detach().view(-1), 0
    kind = None if saved.dtype == tensor.dtype else saved.dtype
    if kind is None:
        flat, itemsize = flat.view(torch.uint8), 1
    for batch in batches(ranges, step):
        size = sum(end - start for start, end in batch) // itemsize
        yield record.opened, batch, flat[done : done + size], kind
        done += size
