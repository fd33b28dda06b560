"""The user's model and checkpoint, and the conversion of one to the other."""
