"""One measurement from start to end: its case, its bounds, the job of its process, and the checks of its record."""
