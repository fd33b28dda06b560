"""Checks that the documents of this repository are true: their commands, code, tables and links."""
