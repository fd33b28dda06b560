"""Numbers of examples that hypothesis draws: few at a desk, more before a merge, many by night."""

import os

from hypothesis import settings

# Of every test that draws its examples. A strategy's are shared out among its properties, see `sweep.LEAST`.
EXAMPLES = {"dev": 20, "ci": 40, "nightly": 2000}


def register() -> None:
    """Register the profiles of `--hypothesis-profile`, and choose one for a run that names none."""
    for name, examples in EXAMPLES.items():
        # What fails once is kept in the database, and tried first the next time, by whatever profile.
        settings.register_profile(name, settings.get_profile("default"), max_examples=examples, deadline=None)
    settings.load_profile("ci" if os.environ.get("CI") else "dev")
