"""A stand-in for a GPU: PyTorch's own CUDA build runs on it, with its allocators, on a machine that has none."""
