from bench.strategies.reading.assign import cast, swap_in
from bench.strategies.reading.fit import require_fit
from bench.strategies.reading.read_checkpoint import read
from bench.strategies.reading.skeleton import initialise, skeleton


def load_assign(build, path, device, *, dtype=None, missing=()):
    """Load the checkpoint to the device, and make its tensors the parameters and buffers of a meta skeleton."""
    model = skeleton(build)
    state_dict = read(path, device, model)
    # What is swapped in brings its own dtype, shape, strides and ties along.
    require_fit(path, model, state_dict, dtype, missing)
    initialise(model, missing, device, dtype)
    swap_in(model, cast(state_dict, dtype, device) if dtype else state_dict, device, missing)
    return model
