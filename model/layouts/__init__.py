"""Layouts of a checkpoint on disk: how each is written and read back."""
