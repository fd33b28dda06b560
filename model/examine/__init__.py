"""Examines a checkpoint before anything of it is loaded."""
