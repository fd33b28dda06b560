import os
from contextlib import ExitStack, closing

import torch

from bench.strategies.reading.assign import swap_in
from bench.strategies.reading.fit import require_fit, require_plain, with_tied_names
from bench.strategies.reading.memory import Ring, in_blocks, of_their_own
from bench.strategies.reading.read_checkpoint import files_of
from bench.strategies.reading.records import File, contents, kinds_to_convert
from bench.strategies.reading.skeleton import initialise, skeleton
from bench.strategies.reading.threads import Reader, started


def streamed(  # noqa: PLR0913 - options
    build, path, device, *, dtype=None, missing=(), ring=64 * 2**20, threads=None, direct=False
):
    """Read the file straight to where its weights end, in threads, and build a meta skeleton meanwhile.

    To CUDA the bytes pass through `ring` bytes of page-locked memory. With `dtype`, floating-point tensors end in that
    one, whatever the file's and the model's are. `direct`: they are read past the page cache.
    """
    # To wait for a disk takes no core.
    device, threads = torch.device(device), threads or (8 if direct else min(8, os.cpu_count() or 1))
    with ExitStack() as stack:
        files = [
            File(stack.enter_context(file.open("rb", buffering=0)), listed) for file, listed in files_of(path).items()
        ]
        reader = stack.enter_context(closing(Reader(files, direct)))
        kinds = kinds_to_convert(files, dtype) if dtype else {}
        if device.type == "cpu" and not kinds:
            storages, parts = in_blocks(files, threads)
            fill = reader.read
        else:
            targets = of_their_own(files, kinds, dtype, device)
            storages = {record: target.untyped_storage() for record, target in targets.items()}
            size = sum(record.end - record.start for record in targets)
            passing = stack.enter_context(closing(Ring(reader, device, ring, size, threads)))
            parts, fill = passing.parts(targets, kinds), passing.fill
        finish = stack.enter_context(started(fill, parts, threads))

        model = skeleton(build)
        require_plain(model)
        casts = dict.fromkeys(kinds, dtype)
        state_dict = contents(files, lambda record, kind: (storages[record], casts.get(record, kind), device))
        state_dict = with_tied_names(state_dict, model)
        # What is swapped in brings its own dtype, shape, strides and ties along.
        require_fit(path, model, state_dict, dtype, missing)
        initialise(model, missing, device, dtype)
        finish(state_dict, storages)
    swap_in(model, state_dict, device, missing)
    return model
