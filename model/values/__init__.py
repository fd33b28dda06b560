"""Compares values: tensors bit by bit, outputs within rounding, buffers and initial values with what they may be."""
