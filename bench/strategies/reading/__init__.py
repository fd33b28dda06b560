"""Steps that recipes share: reading a checkpoint, and making it the model's.

A recipe is pasted together with this folder, which imports torch and the standard library only.
"""
