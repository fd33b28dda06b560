"""A folder with the files of a model on the Hugging Face hub, without its weights.

It has `config.json`, the index, and for each `.safetensors` file a sparse file with the same header. So the names,
dtypes and shapes in the headers are correct.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from model.examine.limits import ReadAllowance
from model.examine.mishaps import FIRST_BYTES, mishap
from model.examine.safetensors_file import MOST_HEADER_BYTES, read_json
from model.examine.shard_index import read_index
from model.examine.trust import UntrustedCheckpoint, naming, one_line
from model.examine.zip_directory import MOST_INDEX_BYTES, MalformedFile
from model.user.from_config import MOST_BYTES
from model.user.hub_name import HubName
from model.user.hub_requests import HubRefusal, fetch, fetch_part, hub_library
from model.user.pretrained_folder import CONFIG, WEIGHTS, why_no_config

PARALLEL_REQUESTS = 16
# Characters of a commit that are shown.
COMMIT_CHARACTERS = 12
# Of a description of a repository, which lists its files.
_MOST_LISTING_BYTES = 64 * 2**20
# Of all headers: those of the largest models have some 20 MB.
_MOST_HEADERS_BYTES = 2**30
_LENGTH_BYTES = 8
_INDEX = ".index.json"


@dataclass(frozen=True)
class HubFolder:
    """A folder with what was fetched of a model.

    `display_name` has the commit. `weights` is the index or the file with the headers; None: the repository has none,
    or they were not asked for.
    """

    folder: Path
    display_name: str
    weights: Path | None
    note: str

    @contextmanager
    def named(self) -> Iterator[None]:
        """Have errors in this block name the repository in place of the folder."""
        try:
            yield
        except ValueError as error:
            # The files are those that --model names.
            said = str(error).replace(f"--checkpoint: {self.folder}", f"--model: {self.folder}")
            raise ValueError(said.replace(str(self.folder), self.display_name)) from None


@dataclass(frozen=True)
class _Commit:
    """The files of a repository at a commit."""

    name: HubName
    digest: str
    files: frozenset[str]

    @property
    def display_name(self) -> str:
        return f"hub:{self.name.repository}@{self.digest[:COMMIT_CHARACTERS]}"

    def url(self, file: str) -> str:
        return str(hub_library().hf_hub_url(self.name.repository, file, revision=self.digest))


def fetch_folder(name: HubName, parent: Path, *, headers: bool = True) -> HubFolder:
    """Make the folder of a model in `parent`; `headers`: with those of its weights.

    Raises `ValueError`, in a line.
    """
    try:
        with _of(str(name)):
            commit = _commit(name)
        with _of(commit.display_name):
            return _fetched(commit, parent / name.name, headers=headers)
    except OSError as error:
        raise ValueError(
            f"{name}: its headers cannot be written ({error.strerror}); set TMPDIR to another folder"
        ) from None


@contextmanager
def _of(subject: str) -> Iterator[None]:
    try:
        yield
    except UntrustedCheckpoint as error:
        key = f": {error.key}" if error.key is not None else ""
        raise ValueError(f"{subject}: {one_line(f'{error.file.name}{key} {error.reason}')}") from None
    except HubRefusal as error:
        raise ValueError(f"{subject}: {error}") from None


def _commit(name: HubName) -> _Commit:
    endpoint = hub_library(".constants").ENDPOINT
    url = f"{endpoint}/api/models/{name.repository}/revision/{quote(name.revision or 'main', safe='')}"
    content = fetch(url, _MOST_LISTING_BYTES)
    try:
        described = read_json(content, "is", ReadAllowance.of(len(content)))
        digest, files = described["sha"], frozenset(one["rfilename"] for one in described["siblings"])
    except (MalformedFile, KeyError, TypeError):
        raise HubRefusal("the server does not describe a repository as the hub does; check HF_ENDPOINT") from None
    if not _is_digest(digest) or not all(isinstance(one, str) for one in files):
        raise HubRefusal("the server does not name a commit and files as the hub does; check HF_ENDPOINT")
    return _Commit(name, digest, files)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) >= COMMIT_CHARACTERS and set(value) <= set("0123456789abcdef")


def _fetched(commit: _Commit, folder: Path, *, headers: bool) -> HubFolder:
    if CONFIG not in commit.files:
        raise HubRefusal(f"it {why_no_config({one for one in commit.files if '/' not in one})}")
    folder.mkdir(parents=True)
    with _of_file(CONFIG):
        (folder / CONFIG).write_bytes(fetch(commit.url(CONFIG), MOST_BYTES))
    entrance = _entrance(commit.files) if headers else None
    if entrance is None:
        alone = ", and the plan uses it alone: the repository has no .safetensors file that transformers loads"
        note = f"{commit.display_name}: {CONFIG} was fetched{alone if headers else ''}"
        return HubFolder(folder, commit.display_name, None, note)
    weights = folder / entrance
    fetched = _headers(commit, folder, _files(commit, weights))
    count, size = len(fetched), sum(fetched)
    what = "the header of 1 file" if count == 1 else f"the headers of {count:,} files"
    note = f"{commit.display_name}: {CONFIG} and {what} were fetched ({size:,} bytes of headers), and no weights"
    return HubFolder(folder, commit.display_name, weights, note)


def _entrance(files: Iterable[str]) -> str | None:
    """Return the name of the index, or of the only file, that `from_pretrained` takes; or of the only one there is."""
    found = [name for name in WEIGHTS if name in files and ".safetensors" in name]
    if found:
        return found[0]
    others = [name for name in files if "/" not in name and name.endswith((".safetensors", f".safetensors{_INDEX}"))]
    return others[0] if len(others) == 1 and "\0" not in others[0] else None


def _files(commit: _Commit, weights: Path) -> list[str]:
    """Return the names of the files with weights; of an index, write it."""
    if not weights.name.endswith(_INDEX):
        return [weights.name]
    with _of_file(weights.name):
        weights.write_bytes(fetch(commit.url(weights.name), MOST_INDEX_BYTES))
    with naming(weights):
        return sorted(str(file.relative_to(weights.parent)) for file in read_index(weights))


@contextmanager
def _of_file(name: str) -> Iterator[None]:
    try:
        yield
    except HubRefusal as error:
        raise HubRefusal(f"{one_line(name)}: {error}") from None


def _headers(commit: _Commit, folder: Path, files: list[str]) -> list[int]:
    """Write every file with its header and a hole; return the bytes of the headers."""
    if missing := [name for name in files if name not in commit.files]:
        raise HubRefusal(f"{one_line(missing[0])} is listed by the index, and is missing; name another revision")
    # Not a byte behind a header is asked for: its length comes first.
    places = _parallel(lambda name: _place(commit, name), files)
    if (total := sum(length for length, _ in places)) > _MOST_HEADERS_BYTES:
        raise HubRefusal(
            f"its headers have {total:,} bytes, above the limit of {_MOST_HEADERS_BYTES:,}; name another revision"
        )
    _parallel(lambda one: _write(commit, folder, one[0], *one[1]), list(zip(files, places, strict=True)))
    return [_LENGTH_BYTES + length for length, _ in places]


def _parallel(do: Callable[[Any], Any], each: list[Any]) -> list[Any]:
    """Call a function with each value, some at a time; after an error of one, no more are begun."""
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        futures = [pool.submit(do, one) for one in each]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _place(commit: _Commit, name: str) -> tuple[int, int]:
    """Return the length of a header and the size of its file. Raises `HubRefusal` for what is no such file."""
    with _of_file(name):
        received = fetch_part(commit.url(name), 0, _LENGTH_BYTES)
        length, size = int.from_bytes(received.content, "little"), received.file_bytes
        if size is None:
            raise HubRefusal("the server does not tell the size of the file; check HF_ENDPOINT")
        if len(received.content) < _LENGTH_BYTES or length > min(MOST_HEADER_BYTES, size - _LENGTH_BYTES):
            raise HubRefusal(_wrong(fetch_part(commit.url(name), 0, FIRST_BYTES).content, length))
        return length, size


def _wrong(first: bytes, length: int) -> str:
    """Return what a file without a header is."""
    is_what = (mishap(first) or f"is no .safetensors file: its header would have {length:,} bytes").partition(": ")
    detail = f": {is_what[2]}" if is_what[2].startswith("its header") else ""
    return f"the file {is_what[0]}{detail}; name another revision"


def _write(commit: _Commit, folder: Path, name: str, length: int, size: int) -> None:
    with _of_file(name):
        header = fetch_part(commit.url(name), _LENGTH_BYTES, length).content
        if len(header) < length:
            raise HubRefusal(f"the header came with {len(header):,} of its {length:,} bytes; try again later")
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        opened.write(length.to_bytes(_LENGTH_BYTES, "little") + header)
        opened.truncate(size)
