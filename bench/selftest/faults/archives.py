"""Faults of archives: files that are no zip, another zip, or not as `torch.save` writes one."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from bench.selftest.faults.fault import Fault, Inject, edited, records_of, repacked, write_archive

_JUNK = b"\xa5" * 64


def _old_format(path: Path) -> None:
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)


def _zipped(method: int, *, around: bool) -> Inject:
    """Put the records, or the file itself, in a zip of another tool."""

    def inject(path: Path) -> None:
        records = {"checkpoint.pt": path.read_bytes()} if around else records_of(path)
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, content in records.items():
                archive.writestr(name if around else f"checkpoint/{name}", content)

    return inject


def _other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")


def _around(path: Path) -> None:
    """Put the archive in a record of another archive of torch."""
    write_archive(path, [("checkpoint.pt", path.read_bytes())])


def _torchscript(path: Path) -> None:
    write_archive(path, [*records_of(path).items(), ("constants.pkl", b"\x80\x02)."), ("code/m.py", b"pass")])


def _entry(content: bytes, name: bytes) -> int:
    """Return the start of a record's entry in the directory."""
    place = content.index(b"PK\1\2")
    while not content[place + 46 :].startswith(name):
        place = content.index(b"PK\1\2", place + 1)
    return place


def _header(content: bytes, name: bytes) -> int:
    """Return the start of a record's header."""
    return content.index(name) - 30


def _changed(where: Callable[[bytes, bytes], int], offset: int, bits: int) -> Inject:
    """Flip bits of a field in the directory's entry, or in the header, of one storage."""

    def change(content: bytes) -> bytes:
        damaged = bytearray(content)
        damaged[where(content, b"checkpoint/data/3") + offset] ^= bits
        return bytes(damaged)

    return _as_saved_by_name(change)


def _as_saved_by_name(change: Callable[[bytes], bytes]) -> Inject:
    """The archive is named as the file is, whatever it was saved through."""

    def inject(path: Path) -> None:
        write_archive(path, records_of(path).items())
        edited(change)(path)

    return inject


def _with_a_gap(content: bytes) -> bytes:
    """Add bytes before the directory that belong to no record, and correct every pointer to the directory."""
    place, end = content.index(b"PK\1\2"), bytearray(content[content.rindex(b"PK\6\6") :])
    for form, offset in (("<Q", 48), ("<Q", 56 + 8), ("<I", 56 + 20 + 16)):
        [old] = struct.unpack_from(form, end, offset)
        struct.pack_into(form, end, offset, old + len(_JUNK))
    return content[:place] + _JUNK + content[place : content.rindex(b"PK\6\6")] + bytes(end)


def _shortened(records: dict[str, bytes]) -> None:
    records["data/3"] = records["data/3"][:64]


def _lengthened(records: dict[str, bytes]) -> None:
    records["data/3"] += _JUNK


def _without_a_storage(records: dict[str, bytes]) -> None:
    del records["data/3"]


def _with_a_storage_more(records: dict[str, bytes]) -> None:
    records["data/999"] = _JUNK


def _of_the_other_byte_order(records: dict[str, bytes]) -> None:
    records["byteorder"] = b"big"


def _of_an_unknown_byte_order(records: dict[str, bytes]) -> None:
    records["byteorder"] = b"middle"


def _leading_out(records: dict[str, bytes]) -> None:
    records["../outside"] = _JUNK


def _bare_pickle(_: bytes) -> bytes:
    return pickle.dumps({"tok_emb.weight": 1}, protocol=2)


def _with_an_archive_behind(content: bytes) -> bytes:
    behind = io.BytesIO()
    torch.save({}, behind)
    return content + behind.getvalue()


_OTHER_MARKS = "marks that torch.save does not make"

ARCHIVE_FAULTS = {
    "empty": Fault(edited(lambda _: b""), "is empty"),
    "garbage": Fault(edited(lambda _: _JUNK * 99), "does not start with the header of a file of torch.save"),
    "cut in half": Fault(edited(lambda content: content[: len(content) // 2]), "is cut off"),
    "without its last byte": Fault(edited(lambda content: content[:-1]), "is cut off"),
    "bare pickle": Fault(edited(_bare_pickle), "is a bare pickle"),
    "format before 1.6": Fault(_old_format, r"is in the format of torch before 1\.6"),
    "safetensors": Fault(edited(lambda _: struct.pack("<Q", 2) + b"{}"), "is a safetensors file"),
    "another zip": Fault(_other_zip, "torch.save did not write, as it has no data.pkl"),
    "zip of no records": Fault(edited(lambda _: b"PK\5\6" + bytes(18)), "is an empty zip"),
    "zip around it": Fault(
        _zipped(zipfile.ZIP_STORED, around=True), r"is a zip that holds the checkpoint " r"checkpoint\.pt: unpack it"
    ),
    "torch's zip around it": Fault(_around, r"is a zip that holds the checkpoint \S*checkpoint\.pt: unpack it"),
    "zipped by another tool": Fault(_zipped(zipfile.ZIP_STORED, around=False), _OTHER_MARKS),
    "compressed": Fault(_zipped(zipfile.ZIP_DEFLATED, around=False), "has a compressed record", silent=True),
    "TorchScript": Fault(_torchscript, "is a TorchScript archive, which holds a program"),
    "bytes before": Fault(
        edited(lambda content: _JUNK + content), "does not start with the header of a file of torch.save"
    ),
    "bytes behind": Fault(edited(lambda content: content + _JUNK), "has 64 bytes behind the end of its zip"),
    "archive behind": Fault(edited(_with_an_archive_behind), "has no second end where it says that one is"),
    "bytes between": Fault(edited(_with_a_gap), r"has bytes [\d,]+ to [\d,]+ that belong to no record"),
    "two records of a name": Fault(
        edited(lambda content: content.replace(b"data/10", b"data/11")), r"has two records \S+/data/11"
    ),
    "record that leads out": Fault(repacked(_leading_out), r"\.\./outside, which torch\.save does not write"),
    "record marked a folder": Fault(_changed(_entry, 38, 0x10), _OTHER_MARKS, silent=True),
    "record marked encrypted": Fault(_changed(_entry, 8, 0x1), _OTHER_MARKS),
    "record of another CRC-32": Fault(_changed(_entry, 16, 0x1), "followed by another size or CRC-32"),
    "record of another size": Fault(_changed(_entry, 24, 0x4), "has a compressed record"),
    "record elsewhere": Fault(_changed(_entry, 42, 0x40), "starts at byte", silent=True),
    "header of another name": Fault(_changed(_header, 46, 0x1), "says something else than the directory"),
    "header of another length": Fault(_changed(_header, 28, 0x4), "extra field|another size", silent=True),
    "storage too short": Fault(
        repacked(_shortened), r"has a record data/3 of 64 bytes, where [\d,]+ are needed", silent=True
    ),
    "storage too long": Fault(repacked(_lengthened), r"has a record data/3 of [\d,]+ bytes, where [\d,]+ are needed"),
    "storage missing": Fault(repacked(_without_a_storage), "lacks the record data/3"),
    "storage of no tensor": Fault(repacked(_with_a_storage_more), "has a record data/999 that no tensor uses"),
    "other byte order": Fault(repacked(_of_the_other_byte_order), "has the byte order big", silent=True),
    "unknown byte order": Fault(repacked(_of_an_unknown_byte_order), "has the byte order middle"),
}
