"""Compares values: tensors bit by bit, outputs within rounding, buffers and initial values."""
