"""Conformance of loaders: models of every kind are drawn, saved, loaded and compared."""
