"""Faults, mutants and specimens: what only the suite's own tests use."""
