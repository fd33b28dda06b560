import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Whoever asks CUDA how many devices there are before a fork cannot use one after it.
ASK = """
import torch

for name in ("is_available", "device_count", "_lazy_init"):
    def asked(*_, name=name):
        raise SystemExit(f"torch.cuda.{name} was asked")
    setattr(torch.cuda, name, asked)

import bench.meters.child
import bench.meters.warm
"""


def test_what_is_done_before_a_fork_asks_nothing_of_cuda() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
