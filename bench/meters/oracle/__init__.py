"""The simulator held against PyTorch's own allocators, in a process that has CUDA: a GPU, or the stand-in for one.

`python -m bench.meters.oracle loads` holds the suite's loads against them, `operations` single operations, `steps`
random sequences of allocations and frees, and `pinned` the same of page-locked memory. What differs ends a command
with status 1. What the simulator refuses by name is counted apart.
"""
