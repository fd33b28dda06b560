"""Checkpoints on disk: their identity, their files, and the folder that keeps them."""
