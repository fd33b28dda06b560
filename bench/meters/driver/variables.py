"""The environment variables of a process that runs on the stand-in."""

# The name of the card's socket, in the abstract namespace.
CARD = "WEIGHT_LOADING_STAND_IN"
# The memory of its devices, as it was given: `80GiB,80GiB`.
MEMORY = "WEIGHT_LOADING_STAND_IN_MEMORY"
