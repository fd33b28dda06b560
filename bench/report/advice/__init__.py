"""Advice for a memory budget: the strategy to use, what it leaves free, and what would fit where nothing does."""
