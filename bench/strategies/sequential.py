from bench.strategies.reading.assign import build_on, load_extra_state
from bench.strategies.reading.fit import require_fit
from bench.strategies.reading.read_checkpoint import read


def sequential(build, path, device, *, dtype=None, missing=()):
    """Put the model on the device and the state dict on the host, and move one tensor at a time."""
    model = build_on(build, device, dtype)
    state_dict = read(path, "cpu", model)
    # `copy_` broadcasts and casts, and lets the last of several tied names win.
    require_fit(path, model, state_dict, dtype, missing)
    # The model's state dict shares the model's memory, outside autograd, and has its buffers too.
    for name, destination in model.state_dict().items():
        if not name.endswith("_extra_state") and name not in missing:
            destination.copy_(state_dict[name].to(device))
    load_extra_state(model, state_dict)
    return model
