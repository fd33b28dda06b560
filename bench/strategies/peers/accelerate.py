from accelerate import init_empty_weights, load_checkpoint_and_dispatch


def accelerate(build, path, device, *, dtype=None):
    """Build a skeleton with the library's own context, tie its weights, and let it put the model on the device.

    `dtype`: what the weights are cast to; None: they are left as they are.
    """
    with init_empty_weights():
        model = build()
    # Its context unties them; it asks for this, which models of transformers have.
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    return load_checkpoint_and_dispatch(model, str(path), device_map={"": str(device)}, dtype=dtype)
