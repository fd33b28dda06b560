"""Runs on disk: what a record holds, and what makes two of them comparable. Knows nothing of torch's tensors."""
