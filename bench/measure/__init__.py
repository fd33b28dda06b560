"""One measurement, front to back: its case, its bounds, the job of its process, and the checks of its record."""
