"""Hooks up the plugin room, which has all that knows pytest."""

# Before torch, and what else takes seconds to import: a signal ends those imports at once.
from bench import interrupts  # noqa: F401

pytest_plugins = [
    "bench.plugin.hooks",
    "bench.plugin.terminal",
    "bench.plugin.fixtures",
    # Runs of pytest within tests.
    "pytester",
]
