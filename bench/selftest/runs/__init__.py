"""Runs of the whole suite in processes of their own."""
