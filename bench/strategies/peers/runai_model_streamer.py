import torch
from runai_model_streamer import SafetensorsStreamer


def runai_model_streamer(build, path, device):
    """Stream the file to the device, and make the tensors that come the tensors of a meta skeleton."""
    with torch.device("meta"):
        model = build()
    with SafetensorsStreamer() as streamer:
        # What it yields is the caller's to keep, by its default `owned=True`.
        streamer.stream_file(str(path), device=str(device))
        model.load_state_dict(dict(streamer.get_tensors()), assign=True)
    return model
