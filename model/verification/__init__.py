"""Compares a loaded model with the saved model."""
