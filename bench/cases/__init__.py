"""What a command line asks for: its options, and the measurements that they name."""
