"""Two sides, a commit or a pip requirement each, measured in turn and held against each other: `--versus`."""
