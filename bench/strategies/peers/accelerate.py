from accelerate import init_empty_weights, load_checkpoint_in_model


def accelerate(build, path, device):
    """Build a skeleton with the library's own context, and let it put the weights of the file there."""
    with init_empty_weights():
        model = build()
    load_checkpoint_in_model(model, str(path), device_map={"": str(device)})
    return model
