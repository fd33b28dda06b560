"""Files as they were when they were found to be sound, and what happened to them since."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from model.examine.trust import UntrustedCheckpoint


@dataclass(frozen=True)
class FileIdentity:
    """Which file there is below a checkpoint's folder: of an other one, or a changed one, something differs."""

    name: str
    inode: int
    bytes: int
    mtime_ns: int
    # Nobody can set it: a file that was changed, and given its old `mtime_ns`, has another one.
    ctime_ns: int


def stamps(folder: Path, elsewhere: Iterable[Path] = ()) -> tuple[FileIdentity, ...]:
    """Return what identifies every file below `folder`, and others, as they are now."""
    kept = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return tuple(_stamp(folder, path) for path in (*kept, *elsewhere))


def _stamp(folder: Path, path: Path) -> FileIdentity:
    status = path.stat()
    name = path.relative_to(folder) if path.is_relative_to(folder) else path.absolute()
    return FileIdentity(str(name), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _what_happened(before: FileIdentity, now: FileIdentity) -> str:
    if now.inode != before.inode:
        return "was replaced by another file while it was in use"
    if now.bytes != before.bytes:
        return f"was changed from {before.bytes:,} bytes to {now.bytes:,} while it was in use"
    return "was written to while it was in use"


def require_unchanged(folder: Path, stamps: Iterable[FileIdentity]) -> None:
    """Raise `UntrustedCheckpoint` for a file, below `folder` or elsewhere, that is no longer what its stamp says."""
    for stamp in stamps:
        try:
            found = _stamp(folder, folder / stamp.name)
        except OSError as error:
            reason = f"was sound, and can no longer be found: {error.strerror}"
            raise UntrustedCheckpoint(folder / stamp.name, None, reason) from None
        if found != stamp:
            raise UntrustedCheckpoint(folder / stamp.name, None, _what_happened(stamp, found))
