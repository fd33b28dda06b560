"""Reports of a run, in a terminal and on a CI page."""

import warnings

# torch says so when it is imported without NumPy, which nothing here needs.
warnings.filterwarnings("ignore", "Failed to initialize NumPy", UserWarning)
