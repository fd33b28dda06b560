from bench.strategies.reading.fit import require_fit
from bench.strategies.reading.state_dict import read


def baseline(build, path, device):
    """Build the model on the host, move it to the device, and copy a state dict that is on the device too."""
    model = build().to(device)
    state_dict = read(path, device, model)
    # `load_state_dict` casts to the model's dtype, and lets the last of several tied names win.
    require_fit(path, model, state_dict)
    model.load_state_dict(state_dict)
    return model
