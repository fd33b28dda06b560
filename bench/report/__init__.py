"""Runs for people: what a run's records say, in a terminal and on a CI page."""
