from bench.strategies.reading.assign import build_on
from bench.strategies.reading.read_checkpoint import read


def load_then_shard(build, path, device, parallelize, *, dtype=None):
    """Load everything on the host of every rank, and keep a shard of it on the device."""
    model = build_on(build, "cpu", dtype)
    model.load_state_dict(read(path, "cpu", model))
    return parallelize(model).to(device)
