"""CUDA without a GPU: for a while, `cuda` is a device whose tensors have sizes, but no bytes.

Its tensors lie on PyTorch's meta device and say that they are on CUDA. Three listeners see to that: one hears
every call, with the devices that were named in it (`calls.py`), one every operation, with the storages that came
of it (`operations.py`), and one what is done to storages themselves (`storages.py`). A skeleton on the meta
device stays what it is, and costs nothing. What CUDA takes for an operation beside its result is in `kernels.py`.

Streams and events (`streams.py`) are never busy, but what is allocated belongs to a stream. Page-locked memory
(`pinned.py`) is the host's, in blocks as PyTorch's allocator for it makes them.

What they hear goes into a ledger (`ledger.py`). Peaks, and what was alive at them, are counted from it afterwards
(`peaks.py`), with a model of PyTorch's caching allocator (`allocator.py`).

The host is the real one: a copy to the device reads the tensor it copies, as CUDA's does. In a plan the host's
tensors have no bytes either, and checkpoints are opened without reading them (`reads.py` for a recipe's own reads).
"""
