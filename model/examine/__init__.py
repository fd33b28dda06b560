"""Examines a checkpoint before it is loaded."""
