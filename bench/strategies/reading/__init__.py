"""What recipes share: how a checkpoint is read, and how it becomes the model's.

A recipe is pasted together with this folder, which imports torch and the standard library only.
"""
