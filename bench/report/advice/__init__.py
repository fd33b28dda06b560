"""Advice for a memory budget: the strategy to use, the memory that stays free, and remedies if nothing fits."""
