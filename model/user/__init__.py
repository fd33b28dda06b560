"""The user's model, its checkpoint, and how one becomes the other."""
