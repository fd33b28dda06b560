"""The record of a benchmark: every field, declared once."""
