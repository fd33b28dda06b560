from bench.strategies.reading.assign import build_on
from bench.strategies.reading.fit import require_fit
from bench.strategies.reading.read_checkpoint import read


def baseline(build, path, device, *, dtype=None, missing=()):
    """Build the model on the host, move it to the device, and copy a state dict that is on the device too."""
    model = build_on(build, device, dtype)
    state_dict = read(path, device, model)
    # `load_state_dict` casts to the model's dtype, and lets the last of several tied names win.
    require_fit(path, model, state_dict, dtype, missing)
    model.load_state_dict(state_dict, strict=not missing)
    return model
