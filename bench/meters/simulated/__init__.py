"""CUDA without a GPU: for a while, `cuda` is a device whose tensors have sizes, but no bytes.

Its tensors lie on PyTorch's meta device and say that they are on CUDA. One interceptor gets every call, with the
devices that it names (`function_interceptor.py`), one every operation, with the storages that it makes
(`dispatch_interceptor.py`), and replacements get what is done to storages themselves (`storages.py`). A skeleton on
the meta device stays one, and costs nothing. What CUDA takes for an operation beside its result is in `kernels.py`.

Streams and events (`streams.py`) are never busy, but allocations belong to a stream. Page-locked memory (`pinned.py`)
is the host's, in blocks as PyTorch's allocator for it makes them.

All of them write to a ledger (`ledger.py`). Peaks, and the allocations alive at them, are computed from it afterwards
(`peaks.py`), with a model of PyTorch's caching allocator (`allocator.py`).

The host is the real one: a copy to the device reads the tensor it copies, as CUDA's does. In a plan the host's
tensors have no bytes either, and checkpoints are opened without reading them (`reads.py` for a recipe's own reads).
"""
