import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Whoever asks CUDA how many devices there are before a fork cannot use one after it.
ASK = """
import os
import signal

# What a fork server is started without hearing, it drops, and then it hears.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
os.kill(os.getpid(), signal.SIGINT)

import torch

for name in ("is_available", "device_count", "_lazy_init"):
    def asked(*_, name=name):
        raise SystemExit(f"torch.cuda.{name} was asked")
    setattr(torch.cuda, name, asked)

import bench.meters.child
import bench.meters.warm

assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
"""

# Without its own renewal of the pool, torch fails in one of five such forks.
COPY = """
import os
from threading import Barrier, Thread

import torch

import bench.meters.warm


def copies():
    source, targets = torch.zeros(1 << 20), [torch.empty(1 << 20) for _ in range(4)]
    together, copied = Barrier(len(targets)), []

    def work(target):
        together.wait()
        copied.append(target.copy_(source))

    threads = [Thread(target=work, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(copied) == len(targets)


for _ in range(50):
    if not (child := os.fork()):
        os._exit(not copies())
    assert os.waitpid(child, 0)[1] == 0
"""


def test_what_is_done_before_a_fork_asks_nothing_of_cuda() -> None:
    assert_runs(ASK)


def test_threads_of_a_forked_process_can_copy_at_once() -> None:
    assert_runs(COPY)


def assert_runs(script: str) -> None:
    """Assert that a fresh interpreter runs it, with nothing to complain of."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_fork_server_that_imports_hears_no_interrupt_and_ends_with_its_run(tmp_path: Path) -> None:
    """Leave Ctrl-C to the run: the server would write where it was."""
    (tmp_path / "slow.py").write_text("import time\nprint('imports', flush=True)\ntime.sleep(100)\n")
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(tmp_path)!r})
from multiprocessing import forkserver
from bench.meters import process

process._CONTEXT.set_forkserver_preload(["slow"])
process.warm_up()
assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
os.kill(forkserver._forkserver._forkserver_pid, signal.SIGINT)
print("started", flush=True)
sys.stdin.readline()
"""
    run = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout
    assert sorted(run.stdout.readline() for _ in range(2)) == ["imports\n", "started\n"]
    # Both have the other ends of the pipes: those close when the last of them has ended.
    told, errors = run.communicate("\n", timeout=10)
    assert told == ""
    assert "KeyboardInterrupt" not in errors
