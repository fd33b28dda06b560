"""Faults of a local hub server: each ends in a one-line error, in a limited time."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

from model.conftest import refusal
from model.user.local_hub import COMMIT, Handler, LocalHub
from model.user.test_hub_folder import NET, SHARD, fetched, served

Fault = Callable[[Handler], object]


def refuse(status: int, code: str = "") -> Fault:
    return lambda handler: handler.refuse(status, code)


def send(content: bytes, status: int = 200, **headers: str) -> Fault:
    return lambda handler: handler.answer(content, status, **headers)


def cut(handler: Handler) -> None:
    """End a connection within an answer."""
    handler.send_response(206)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b"x")
    handler.close_connection = True


LISTED = [{"rfilename": "config.json"}, {"rfilename": "model.safetensors"}]
PAGE = b"<!DOCTYPE html><html><body>Sign in</body></html>"

# What the server does at which end of a path, and what is said.
FAULTS: dict[str, tuple[str, Fault, str]] = {
    "no repository": ("/revision/main", refuse(401, "RepoNotFound"), "hub:acme/net: there is no such repository, or"),
    "no repository, logged in": ("/revision/main", refuse(404, "RepoNotFound"), "hub:acme/net: there is no such rep"),
    "no code": ("/revision/main", refuse(401), "hub:acme/net: there is no such repository, or you may not read it; c"),
    "no revision": ("/revision/main", refuse(404, "RevisionNotFound"), "hub:acme/net: there is no such revision; name"),
    "gated": ("/config.json", refuse(401, "GatedRepo"), f"{NET}: config.json: the repository is gated; accept its ter"),
    "gated, logged in": (SHARD, refuse(403, "GatedRepo"), f"{NET}: {SHARD}: the repository is gated; accept its terms"),
    "server error": (
        "/revision/main",
        refuse(500),
        "hub:acme/net: the server answers 500 (Internal Server Error); t",
    ),
    "busy": (SHARD, refuse(503), f"{NET}: {SHARD}: the server answers 503 (Service Unavailable); try again later"),
    "teapot": ("/revision/main", refuse(418), "hub:acme/net: the server answers 418 (I'm a Teapot); check HF_ENDPOINT"),
    "unheard of": ("/revision/main", refuse(599), "hub:acme/net: the server answers 599; check HF_ENDPOINT"),
    "page as a repository": (
        "/revision/main",
        send(PAGE),
        "hub:acme/net: the server does not describe a repository as",
    ),
    "list": (
        "/revision/main",
        send(b"[]"),
        "hub:acme/net: the server does not describe a repository as the hub does; ",
    ),
    "no files": ("/revision/main", send(b'{"sha": "0"}'), "hub:acme/net: the server does not describe a repository"),
    "odd files": (
        "/revision/main",
        send(json.dumps({"sha": COMMIT, "siblings": [{"rfilename": 1}]}).encode()),
        "hub:acme/net: the server does not name a commit and files as the hub does; check HF_ENDPOINT",
    ),
    "path as a commit": (
        "/revision/main",
        send(json.dumps({"sha": "../../../etc", "siblings": LISTED}).encode()),
        "hub:acme/net: the server does not name a commit and files as the hub does; check HF_ENDPOINT",
    ),
    "no config": (
        "/revision/main",
        send(json.dumps({"sha": COMMIT, "siblings": LISTED[1:]}).encode()),
        f"{NET}: it has no config.json; name the folder of a Hugging",
    ),
    "adapter": (
        "/revision/main",
        send(json.dumps({"sha": COMMIT, "siblings": [{"rfilename": "adapter_config.json"}]}).encode()),
        f"{NET}: it is a PEFT adapter, not a model; merge it",
    ),
    "gone": (
        "/revision/main",
        send(json.dumps({"sha": COMMIT, "siblings": [*LISTED, {"rfilename": "config.json"}]}).encode()),
        f"{NET}: model.safetensors: the file is listed, and is missing; name another revision",
    ),
    "page as an index": ("index.json", send(PAGE), f"{NET}: model.safetensors.index.json is no JSON"),
    "index out of the folder": (
        "index.json",
        send(b'{"weight_map": {"a": "../../x.safetensors"}}'),
        f"{NET}: model.safetensors.index.json: a is listed in ../../x.safetensors, which leads out of",
    ),
    "index of what is not there": (
        "index.json",
        send(b'{"weight_map": {"a": "x.safetensors"}}'),
        f"{NET}: x.safetensors is listed by the index, and is missing; name another revision",
    ),
    "page as a file": (SHARD, send(PAGE), f"{NET}: {SHARD}: the file is a web page, not a checkpoint; name another re"),
    "short page": (SHARD, send(b"<html>"), f"{NET}: {SHARD}: the file is a web page, not a checkpoint; name another"),
    "JSON as a file": (
        SHARD,
        send(b'{"error": "Something went wrong"}'),
        f"{NET}: {SHARD}: the file is text that begins with '{{\"error",
    ),
    "empty": (SHARD, send(b""), f"{NET}: {SHARD}: the file is empty; name another revision"),
    "pointer": (
        SHARD,
        send(b"version https://git-lfs.github.com/spec/v1\noid sha256:7\n"),
        f"{NET}: {SHARD}: the file is a git-lfs pointer, not the file; name another revision",
    ),
    "long header": (
        SHARD,
        send((10**9).to_bytes(8, "little") + b"{", 206, **{"Content-Range": "bytes 0-8/9000000000"}),
        f"{NET}: {SHARD}: the file is no .safetensors file: its header would have 1,000,000,000 bytes; name another",
    ),
    "header longer than the file": (
        SHARD,
        send((10**6).to_bytes(8, "little") + b"{", 206, **{"Content-Range": "bytes 0-8/9"}),
        f"{NET}: {SHARD}: the file is no .safetensors file: its header would have 1,000,000 bytes; name another",
    ),
    "no size": (
        SHARD,
        send(bytes(8), 206, **{"Content-Range": "bytes 0-7/*"}),
        f"{NET}: {SHARD}: the server does not tell the size of the file; check HF_ENDPOINT",
    ),
    "cut": (SHARD, cut, f"{NET}: {SHARD}: the hub was not reached (RemoteProtocolError: peer closed connection"),
    "circle": (
        SHARD,
        send(b"", 302, Location=f"/{SHARD}"),
        f"{NET}: {SHARD}: the hub was not reached (TooManyRedire",
    ),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.user.hub_requests.WAITS_SECONDS", (0.01,))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_server_is_one_line(hub: LocalHub, tmp_path: Path, name: str) -> None:
    there = served(hub)
    place, fault, said = FAULTS[name]
    hub.faults[place] = fault
    if name == "gone":
        (there / "model.safetensors.index.json").unlink()
    assert refusal(fetched, tmp_path).startswith(said)


def test_a_busy_server_is_asked_again(hub: LocalHub, tmp_path: Path, impatient: None) -> None:
    served(hub)

    def once(handler: Handler) -> None:
        del hub.faults[SHARD]
        handler.refuse(429)

    hub.faults[SHARD] = once
    assert fetched(tmp_path).weights


def test_a_large_configuration_is_not_read(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served(hub)
    monkeypatch.setattr("model.user.hub_folder.MOST_BYTES", 25)
    assert "config.json: the file has more than 25 bytes, the limit for its kind" in refusal(fetched, tmp_path)


def test_headers_that_take_too_much_are_not_fetched(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(hub)
    monkeypatch.setattr("model.user.hub_folder._MOST_HEADERS_BYTES", 500)
    assert "bytes, above the limit of 500" in refusal(fetched, tmp_path)
    assert max(hub.last[f"model-0000{at}-of-00003.safetensors"] for at in (1, 2, 3)) == 8


@pytest.mark.parametrize("place", ["/revision/main", "config.json", SHARD])
def test_a_server_that_says_nothing_is_left(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    served(hub)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    # Until the client ends the connection.
    hub.faults[place] = lambda handler: handler.connection.recv(1)
    began = monotonic()
    assert "the hub was not reached (ReadTimeout: " in refusal(fetched, tmp_path)
    assert monotonic() - began < 20


def test_a_server_that_drips_is_left(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served(hub)
    monkeypatch.setattr("model.user.hub_requests.PATIENCE_SECONDS", 0.5)
    hub.faults["config.json"] = Handler.drip
    assert "config.json: only " in refusal(fetched, tmp_path)


def test_no_server_is_one_line(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    said = "hub:acme/net: the hub was not reached (ConnectError: [Errno 111] Connection refused); check the network, "
    assert refusal(fetched, tmp_path).startswith(said)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "no server")
    assert refusal(fetched, tmp_path).startswith("hub:acme/net: the hub was not reached (")


def test_offline_nothing_is_asked(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = "hub:acme/net: HF_HUB_OFFLINE is set, so nothing was fetched; unset it, or name a folder"
    assert refusal(fetched, tmp_path) == said
    assert not hub.sent


def test_without_the_library_it_is_said_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert refusal(fetched, tmp_path).endswith("run pip install '.[models]'")
