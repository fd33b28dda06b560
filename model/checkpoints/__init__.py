"""Checkpoints on disk: their identity, how they are made, and the folder that keeps them."""
