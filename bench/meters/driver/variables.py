"""The environment variables of a process that runs on the stand-in."""

import os
import re

# The name of the card's socket, in the abstract namespace.
CARD = "WEIGHT_LOADING_STAND_IN"
# The memory of its devices, as it was given: `80GiB,80GiB`.
MEMORY = "WEIGHT_LOADING_STAND_IN_MEMORY"


def stand_in_memory() -> str | None:
    """Return the memory of the devices, such as "80 GiB, 80 GiB"; None: this process runs on no stand-in."""
    given = os.environ.get(MEMORY)
    return ", ".join(re.sub(r"(?<=\d)(?=[A-Za-z])", " ", one.strip()) for one in given.split(",")) if given else None
