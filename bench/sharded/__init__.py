"""Loads of many processes at once, each a rank: who takes part, how they meet, and what is measured of each."""
