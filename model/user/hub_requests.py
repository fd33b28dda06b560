"""Requests to the Hugging Face hub with `huggingface_hub`, which knows the server and the user's token.

Each takes a limited number of bytes and a limited time. Errors are one line.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from importlib import import_module
from itertools import chain
from typing import Any

from model.examine.trust import one_line
from model.installation import pip_install

# Seconds that any answer may take, and what a connection has to carry beyond those.
PATIENCE_SECONDS = 20.0
LEAST_BYTES_PER_SECOND = 100_000
# A server that is busy is asked again after so many seconds.
WAITS_SECONDS = (0.5, 2.0)
BUSY = {429, 500, 502, 503, 504}

# The codes that the hub gives in its header X-Error-Code.
_CODES = {
    "GatedRepo": "the repository is gated; accept its terms on its page, and log in with hf auth login",
    "RepoNotFound": "there is no such repository, or you may not read it; correct the name, or log in with "
    "hf auth login",
    "RevisionNotFound": "there is no such revision; name a branch, a tag or a commit after the @",
    "EntryNotFound": "the file is listed, and is missing; name another revision",
}
_OF_PART = re.compile(r"bytes \d+-\d+/(\d{1,18})")


class HubRefusal(ValueError):
    """The hub did not give what was asked for, as the message says in a line."""


@dataclass(frozen=True)
class Received:
    """Bytes of a file, and its size; None: the server does not tell it."""

    content: bytes
    file_bytes: int | None


def hub_library(module: str = "") -> Any:
    """Import `huggingface_hub`, or a module of it. Raises `HubRefusal` if it is not installed."""
    try:
        return import_module(f"huggingface_hub{module}")
    except ImportError as error:
        raise HubRefusal(f"huggingface_hub cannot be imported ({error}); run {pip_install('models')}") from None


def fetch(url: str, most_bytes: int) -> bytes:
    """Fetch all of a file, of at most `most_bytes`. Raises `HubRefusal`."""
    with_one_more = _request(url, {}, 0, most_bytes + 1).content
    if len(with_one_more) > most_bytes:
        raise HubRefusal(f"the file has more than {most_bytes:,} bytes, the limit for its kind; name another revision")
    return with_one_more


def fetch_part(url: str, start: int, count: int) -> Received:
    """Fetch `count` bytes of a file from `start` on, fewer at its end. Raises `HubRefusal`."""
    return _request(url, {"Range": f"bytes={start}-{start + count - 1}"}, start, count)


def _request(url: str, headers: dict[str, str], start: int, count: int) -> Received:
    utils, errors = hub_library(".utils"), hub_library(".errors")
    try:
        # A compressed part would be one of the compressed file.
        asked = utils.build_hf_headers() | {"Accept-Encoding": "identity"} | headers
        return _answered(utils.get_session(), url, asked, start, count)
    except HubRefusal:
        raise
    except errors.OfflineModeIsEnabled:
        raise HubRefusal("HF_HUB_OFFLINE is set, so nothing was fetched; unset it, or name a folder") from None
    except Exception as error:  # noqa: BLE001 - whatever the library raises for a connection
        reason = one_line(str(error)) or "no answer"
        raise HubRefusal(
            f"the hub was not reached ({type(error).__name__}: {reason}); check the network, or HF_ENDPOINT"
        ) from None


def _answered(session: Any, url: str, headers: dict[str, str], start: int, count: int) -> Received:
    """Ask until the server is not busy, and return the answer."""
    seconds = hub_library(".constants").HF_HUB_DOWNLOAD_TIMEOUT
    for wait in chain(WAITS_SECONDS, [None]):
        with session.stream("GET", url, headers=headers, timeout=seconds) as response:
            if wait is None or response.status_code not in BUSY:
                return _content(response, start, count)
        time.sleep(wait)
    raise AssertionError("the last answer is returned, or raises")


def _content(response: Any, start: int, count: int) -> Received:
    status = response.status_code
    if status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
        raise HubRefusal(_reason(status, response.headers.get("X-Error-Code", "")))
    # A server that knows no parts begins with the first byte.
    skipped = start if status == HTTPStatus.OK else 0
    content = bytearray()
    for chunk in _in_time(response.iter_raw()):
        content += chunk
        if len(content) >= skipped + count:
            break
    return Received(bytes(content[skipped : skipped + count]), _file_bytes(status, response.headers))


def _file_bytes(status: int, headers: Any) -> int | None:
    if status == HTTPStatus.PARTIAL_CONTENT:
        part = _OF_PART.fullmatch(headers.get("Content-Range", ""))
        return int(part[1]) if part else None
    size = headers.get("Content-Length", "")
    return int(size) if size.isdecimal() else None


def _in_time(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what arrives. Raises `HubRefusal` once it is too slow."""
    began, received = time.monotonic(), 0
    for chunk in chunks:
        yield chunk
        received += len(chunk)
        if time.monotonic() - began > PATIENCE_SECONDS + received / LEAST_BYTES_PER_SECOND:
            raise HubRefusal(f"only {received:,} bytes came in {time.monotonic() - began:.0f} s; try again later")


def _reason(status: int, code: str) -> str:
    """Return what an answer without content says."""
    if code in _CODES:
        return _CODES[code]
    # What is private is said not to be there, or to want a login.
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}:
        return _CODES["RepoNotFound"]
    phrase = f" ({HTTPStatus(status).phrase})" if status in set(HTTPStatus) else ""
    again = "try again later" if status in BUSY else "check HF_ENDPOINT"
    return f"the server answers {status}{phrase}; {again}"
