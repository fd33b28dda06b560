"""Vega, Vega-Lite and Vega-Embed as one script that needs no network, as vl-convert carries them."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from bench.history.run_files import write_whole

_BUNDLE = "import sys, vl_convert; sys.stdout.buffer.write(vl_convert.javascript_bundle().encode())"


# What is in the whole of it.
MARK = "window.vegaEmbed="


@contextmanager
def bundle(cache: Path) -> Iterator[Callable[[], str]]:
    """Begins to make the script, or finds it in the folder `cache`; what it yields waits for it, and returns it.

    That is two seconds of work that lets nothing else of this process run: a process of its own does it.
    """
    kept = cache / f"charts-{version('vl-convert-python')}.js"
    if known := _read(kept):
        yield lambda: known
        return
    with subprocess.Popen([sys.executable, "-c", _BUNDLE], stdout=subprocess.PIPE) as process:

        def wait() -> str:
            script, _ = process.communicate()
            if process.returncode:
                raise RuntimeError(f"vl-convert ended with status {process.returncode}")
            # Within a page it would end the element that it is in.
            script = script.replace(b"</script", b"<\\/script")
            # To keep it saves time the next time, and nothing else.
            with suppress(OSError):
                cache.mkdir(parents=True, exist_ok=True)
                write_whole(kept, script)
            return script.decode()

        yield wait


def _read(kept: Path) -> str | None:
    """The script that was made before; None if there is none, or not the whole of it."""
    try:
        script = kept.read_text(encoding="utf-8")
    except OSError:
        return None
    return script if MARK in script else None
