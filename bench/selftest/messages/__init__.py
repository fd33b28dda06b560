"""Every message of an error that a command line can end in, beside the others: read a `.txt` from top to bottom."""
