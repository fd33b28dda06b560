"""Compares a loaded model with the one that was saved."""
