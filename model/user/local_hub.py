"""A local server that answers requests to the Hugging Face hub, for tests."""

import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_API = re.compile(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)")
_FILE = re.compile(r"/(?:moved/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class LocalHub:
    """Repositories by their names, which are folders here; a fault replaces the answers to paths that end so.

    `sent` has the bytes that were sent of each path, `last` the last byte of each file that was asked for.
    """

    repositories: dict[str, Path]
    url: str = ""
    faults: dict[str, Callable[["Handler"], object]] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)
    last: Counter[str] = field(default_factory=Counter)

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which `huggingface_hub` asks this server."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }


class Handler(BaseHTTPRequestHandler):
    """Answers one request; the server has a `hub`."""

    protocol_version = "HTTP/1.1"
    hub: LocalHub

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        for end, fault in self.hub.faults.items():
            if path.endswith(end):
                fault(self)
                return None
        if found := _API.fullmatch(self.path):
            return self._describe(*map(unquote, found.groups()))
        if found := _FILE.fullmatch(path):
            return self._file(path, *found.groups())
        return self.refuse(404)

    def _describe(self, name: str, revision: str) -> None:
        if name not in self.hub.repositories:
            return self.refuse(401, "RepoNotFound")
        if revision not in {"main", COMMIT, "refs/pr/1"}:
            return self.refuse(404, "RevisionNotFound")
        folder = self.hub.repositories[name]
        files = sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())
        described = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": one} for one in files]}
        return self.answer(json.dumps(described).encode())

    def _file(self, path: str, name: str, revision: str, file: str) -> None:
        found = self.hub.repositories[name] / file
        if revision != COMMIT or not found.is_file():
            return self.refuse(404, "EntryNotFound")
        if file.endswith(".safetensors") and not path.startswith("/moved/"):
            # As large files are, which another server has.
            return self.answer(b"", 302, Location=f"{self.hub.url}/moved{self.path}")
        size = found.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, end = (int(asked[1]), min(int(asked[2]) + 1, size)) if asked else (0, size)
        self.hub.last[file] = max(self.hub.last[file], end)
        with found.open("rb") as opened:
            content = os.pread(opened.fileno(), end - start, start)
        if not asked:
            return self.answer(content)
        return self.answer(content, 206, **{"Content-Range": f"bytes {start}-{end - 1}/{size}"})

    def answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        """Send an answer with a content."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.hub.sent[self.path] += len(content)

    def refuse(self, status: int, code: str = "") -> None:
        """Send an error as the hub does."""
        self.answer(b'{"error": "no"}', status, **({"X-Error-Code": code} if code else {}))

    def drip(self) -> None:
        """Send an answer that takes hours."""
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        while True:
            self.wfile.write(b" ")
            time.sleep(0.05)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Pass over clients that end a connection; show what is wrong here."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(*_)  # type: ignore[arg-type]


@contextmanager
def local_hub(repositories: dict[str, Path]) -> Iterator[LocalHub]:
    """Serve repositories in this block."""
    hub = LocalHub(repositories)
    server = _Server(("127.0.0.1", 0), type("HandlerOfHub", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def in_place_of_the_hub(repositories: dict[str, Path]) -> Iterator[LocalHub]:
    """Serve repositories, and have `huggingface_hub` ask for them in this process, in this block."""
    # It has read its environment by now.
    constants = import_module("huggingface_hub.constants")
    with local_hub(repositories) as hub, patch.dict(os.environ, hub.environment):
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        changed: dict[str, Any] = {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_OFFLINE": False,
        }
        with patch.multiple(constants, **changed):
            yield hub
        import_module("huggingface_hub").close_session()
