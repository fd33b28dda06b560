"""The stand-in for a GPU that a process may run on, in words."""

import os
import re

# In a process that runs on a stand-in: the memory of every device, as it was given, such as `80GiB,80GiB`.
MEMORY = "WEIGHT_LOADING_STAND_IN_MEMORY"


def stand_in_memory() -> str | None:
    """The memory of the stand-in's devices, such as "80 GiB, 80 GiB"; None: this process runs on no stand-in."""
    given = os.environ.get(MEMORY)
    return ", ".join(re.sub(r"(?<=\d)(?=[A-Za-z])", " ", one.strip()) for one in given.split(",")) if given else None
