"""Repositories of a file or two, and packages that uv finds on this disk: nothing here needs a network."""

import subprocess
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

# Of a project: gives a commit with these files, and its full hash.
Commit = Callable[[Mapping[str, str]], str]

# Writes a wheel that uv will find: its name, version, what it requires, and files beside its module.
AddWheel = Callable[..., None]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    _git(folder, "init", "--quiet", "--initial-branch=main")
    return folder


@pytest.fixture
def commit(repository: Path) -> Commit:
    def make(files: Mapping[str, str]) -> str:
        for name, text in files.items():
            (repository / name).parent.mkdir(exist_ok=True)
            (repository / name).write_text(text)
        _git(repository, "add", "--all")
        _git(repository, "-c", "user.name=test", "-c", "user.email=test", "commit", "--quiet", "--message", "files")
        return _git(repository, "rev-parse", "HEAD")

    return make


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(("git", *arguments), cwd=folder, text=True, capture_output=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def add_wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AddWheel]:
    """Write wheels whose module holds its version. As long as this fixture lasts, uv finds no other packages."""
    pytest.importorskip("uv", reason="environments want the extra: pip install '.[versus]'")
    folder = tmp_path_factory.mktemp("wheels")

    def add(name: str, version: str, requires: tuple[str, ...] = (), files: Mapping[str, str] | None = None) -> None:
        about = f"{name}-{version}.dist-info"
        metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"]
        metadata += [f"Requires-Dist: {requirement}\n" for requirement in requires]
        contents = {
            f"{name}.py": f"VERSION = {version!r}\n",
            f"{about}/METADATA": "".join(metadata),
            f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            **(files or {}),
        }
        contents[f"{about}/RECORD"] = "".join(f"{path},,\n" for path in (*contents, f"{about}/RECORD"))
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            for path, text in contents.items():
                wheel.writestr(path, text)

    with pytest.MonkeyPatch.context() as patch:
        settings = folder / "uv.toml"
        settings.write_text(f'no-index = true\nfind-links = ["{folder}"]\n')
        patch.setenv("UV_CONFIG_FILE", str(settings))
        yield add
