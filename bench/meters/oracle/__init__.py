"""The comparison of the simulator with PyTorch's own allocators, in a process that has CUDA: a GPU, or the stand-in.

`python -m bench.meters.oracle loads` compares the suite's loads, `operations` single operations, `steps` random
sequences of allocations and frees, and `pinned` the same of page-locked memory. A difference ends a command with
status 1. What the simulator refuses by name is counted apart.
"""
