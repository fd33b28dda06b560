from bench.strategies.reading.assign import swap_in
from bench.strategies.reading.fit import require_fit
from bench.strategies.reading.read_checkpoint import read
from bench.strategies.reading.skeleton import initialise, skeleton


def mmap_assign(build, path, device, *, dtype=None, missing=()):
    """Map the checkpoint and make its tensors the parameters and buffers of a meta skeleton."""
    model = skeleton(build)
    state_dict = read(path, device, model, mmap=True, dtype=dtype)
    # What is swapped in brings its own dtype, shape, strides and ties along.
    require_fit(path, model, state_dict, dtype, missing)
    initialise(model, missing, device, dtype)
    swap_in(model, state_dict, device, missing)
    return model
