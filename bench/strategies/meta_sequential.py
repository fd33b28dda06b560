from bench.strategies.reading.assign import allocate, load_extra_state, move_others
from bench.strategies.reading.fit import require_fit, require_plain
from bench.strategies.reading.read_checkpoint import read
from bench.strategies.reading.skeleton import initialise, skeleton


def meta_sequential(build, path, device, *, dtype=None, missing=()):
    """Allocate a meta skeleton on the device uninitialised, and copy a state dict that is on the device too."""
    model = skeleton(build)
    require_plain(model)
    initialise(model, missing, device, dtype)
    allocate(model, device, dtype, missing)
    state_dict = read(path, device, model)
    # `copy_` broadcasts and casts, and lets the last of several tied names win.
    require_fit(path, model, state_dict, dtype, missing)
    # The model's state dict shares the model's memory, outside autograd, and has its buffers too.
    for name, destination in model.state_dict().items():
        if not name.endswith("_extra_state") and name not in missing:
            destination.copy_(state_dict[name])
    load_extra_state(model, state_dict)
    move_others(model, device)
    return model
