"""Values -> the JSON documents of the contract (schemas: docs/schema/). Pure.

Times are ISO 8601 with offset, offsets and sizes bytes, UUIDs lower case, unknown is null, and no
key is ever missing: every document is built from literals here, never from what happens to be set.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from smfix.report import exitcode
from smfix.report.journals import disk_use
from smfix.values import (
    CheckedImage,
    Damaged,
    Edit,
    Exit,
    Finding,
    JournalRecord,
    LogReading,
    Names,
    Outcome,
    Pruned,
    Pruning,
    RepairPlan,
    Rescan,
    Sound,
    TreatedImage,
    TreatedIncident,
    Write,
)

if TYPE_CHECKING:
    from smfix.formats.vhd.image import VhdImage
    from smfix.formats.vhd.structs import BatmapHeader, Footer, Header, ParentLocator

Document = dict[str, Any]
_PIECE = 1 << 16  # characters


def dumps(document: Document) -> str:
    """One document as text: ASCII only (nothing in it can act on a terminal), with a newline."""
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


class Rows(NamedTuple):
    """A list of a document that may be larger than the memory: `each` gives its items anew."""

    each: Callable[[], Iterator[Any]]


def pieces(document: Document) -> Iterator[str]:
    """The text of :func:`dumps`, piece by piece; values may be :class:`Rows`, which are lists there."""
    waiting: list[str] = []
    size = 0
    for token in _tokens(document):
        waiting.append(token)
        size += len(token)
        if size >= _PIECE:
            yield "".join(waiting)
            waiting, size = [], 0
    yield "".join(waiting) + "\n"


def _tokens(document: Document) -> Iterator[str]:
    before = "{"
    for key, value in document.items():
        yield f"{before}\n {_encoded(key)}: "
        before = ","
        if isinstance(value, Rows | list):
            inner = "["
            for item in value.each() if isinstance(value, Rows) else value:
                yield f"{inner}\n  {_laid_out(item, 2)}"
                inner = ","
            yield "[]" if inner == "[" else "\n ]"
        else:
            yield _laid_out(value, 1)
    yield "\n}" if document else "{}"


_encoded = json.JSONEncoder(allow_nan=False).encode


def _laid_out(value: object, depth: int) -> str:
    """`value` as :func:`json.dumps` with an indent writes it, which takes three times as long."""
    if isinstance(value, dict) and value:
        items = [f"{_encoded(key)}: {_laid_out(item, depth + 1)}" for key, item in value.items()]
        opening, closing = "{}"
    elif isinstance(value, list | tuple) and value:
        items = [_laid_out(item, depth + 1) for item in value]
        opening, closing = "[]"
    else:
        return _encoded(value)
    line = "\n" + " " * (depth + 1)
    return f"{opening}{line}{f',{line}'.join(items)}{line[:-1]}{closing}"


def plain(value: object) -> Any:
    """`value` as JSON knows it: enums by value, times as text, bytes as hex, tuples as lists.

    An :class:`smfix.values.Extent` becomes ``{"offset", "length"}``.
    """
    match value:
        case None | bool() | int() | float() | str() if not isinstance(value, Enum):
            return value
        case Enum():
            return value.value
        case datetime():
            return _time(value)
        case bytes():
            return value.hex()
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case tuple() if hasattr(value, "_asdict"):
            return {key: plain(item) for key, item in value._asdict().items()}
        case Sequence() | set() | frozenset():
            return [plain(item) for item in value]
        case _:
            return str(value)


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


# --------------------------------------------------------------------------- the shared shapes


def finding(value: Finding) -> Document:
    """FINDING."""
    return {
        "code": value.code,
        "title": value.title,
        "message": value.message,
        "severity": value.severity.value,
        "disposition": value.disposition.value,
        "lossy": value.lossy,
        "facts": plain(value.facts),
    }


def _findings(values: Iterable[Finding]) -> list[Document]:
    return [finding(value) for value in values]


def _edit(value: Edit) -> Document:
    if isinstance(value, Write):
        return {"op": "write", "offset": value.offset, "length": len(value.data)}
    return {"op": "resize", "size": value.size}


def _plan(value: RepairPlan | None) -> Document | None:
    """The plan, null where there is nothing to write."""
    if value is None or not value.edits:
        return None
    return {"edits": [_edit(edit) for edit in value.edits]}


def outcome(value: Outcome) -> Document:
    """OUTCOME."""
    return {
        "status": value.status.value,
        "reason": None if value.reason is None else value.reason.value,
        "message": value.message,
        "findings": _findings(value.findings),
        "plan": _plan(value.plan),
        "remaining": _findings(value.remaining),
        "lost_sectors": value.lost_sectors,
        "journal": value.journal,
        "undo": value.undo,
        "next": list(value.next),
        "recovered": [
            {"journal": one.journal, "state": one.state, "wrote": one.wrote, "message": one.message}
            for one in value.recovered
        ],
    }


def names(value: Names) -> Document:
    """What the pool calls a disk, its SR and its VMs; null and empty where nobody could be asked."""
    return {"vdi": value.vdi, "sr": value.sr, "vms": list(value.vms)}


def _rescans(values: Sequence[Rescan]) -> list[Document]:
    return [
        {
            "sr": value.sr,
            "name": value.name,
            "done": value.done,
            "message": value.message,
            "unhealthy_before": value.unhealthy_before,
            "unhealthy_after": value.unhealthy_after,
            "gc": value.gc,
            "coalesce": value.coalesce,
            "next": list(value.next),
        }
        for value in values
    ]


def incident(value: TreatedIncident) -> Document:
    """One incident of ``from-log``."""
    told = value.incident
    return {
        "id": value.id,
        "vdi": value.vdi,
        "sr": value.sr,
        "path": value.path,
        "names": names(value.names),
        "kinds": list(told.kinds),
        "first_seen": _time(told.first_seen),
        "last_seen": _time(told.last_seen),
        "count": told.count,
        "state": value.state.value,
        "evidence": [{"file": line.file, "line": line.line, "text": line.text} for line in told.evidence],
        "outcome": None if value.outcome is None else outcome(value.outcome),
    }


# --------------------------------------------------------------------------- the documents


def from_log(reading: LogReading, incidents: Sequence[TreatedIncident], rescans: Sequence[Rescan] = ()) -> Document:
    """``smfix.from-log/1``."""
    outcomes = [treated.outcome for treated in incidents if treated.outcome is not None]
    return {
        "schema": "smfix.from-log/1",
        "log": {
            "files": list(reading.files),
            "bytes": reading.bytes,
            "first": _time(reading.first),
            "last": _time(reading.last),
            "year_assumed": reading.year_assumed,
            "zone_assumed": reading.zone_assumed,
            "since": _time(reading.since),
            "until": _time(reading.until),
        },
        "incidents": [incident(treated) for treated in incidents],
        "rescans": _rescans(rescans),
        "summary": {
            "incidents": len(incidents),
            "repaired": sum(one.status.value == "repaired" for one in outcomes),
            "left": sum(treated.left for treated in incidents),
        },
        "exit": int(exitcode.of_incidents(incidents)),
    }


def check(images: Sequence[CheckedImage]) -> Document:
    """``smfix.check/1``."""
    return {
        "schema": "smfix.check/1",
        "images": [
            {
                "path": image.path,
                "verdict": image.verdict.value,
                "size": image.size,
                "end_of_data": image.end_of_data,
                "findings": _findings(image.findings),
                "note": image.note,
                "names": names(image.names),
            }
            for image in images
        ],
        "exit": int(exitcode.of_checks(images)),
    }


def repair(images: Sequence[TreatedImage], rescans: Sequence[Rescan] = ()) -> Document:
    """``smfix.repair/1``."""
    return {
        "schema": "smfix.repair/1",
        "images": [
            {"path": image.path, "names": names(image.names), "outcome": outcome(image.outcome)} for image in images
        ],
        "rescans": _rescans(rescans),
        "exit": int(exitcode.of_images(images)),
    }


def journal(records: Sequence[JournalRecord]) -> Document:
    """``smfix.journal/1``."""
    return {
        "schema": "smfix.journal/1",
        "journals": [
            {
                "id": record.id,
                "state": record.state,
                "file": record.file,
                "damage": record.damage,
                "created": _time(record.created),
                "path": record.path,
                "vdi": record.vdi,
                "sr": record.sr,
                "old_size": record.old_size,
                "new_size": record.new_size,
                "edits": [_edit(edit) for edit in record.edits],
                "fixes": [{"code": code, "message": message} for code, message in record.fixes],
                "lost_sectors": record.lost_sectors,
                "command": list(record.command),
                "undo": record.undo,
                "bytes": record.bytes,
            }
            for record in records
        ],
        "bytes": disk_use(records),
        "exit": 0,
    }


def prune(done: Sequence[Pruned], older_than: str) -> Document:
    """``smfix.prune/1``: what became of each journal."""
    return {
        "schema": "smfix.prune/1",
        "older_than": older_than,
        "journals": [
            {
                "id": one.record.id,
                "state": one.record.state,
                "file": one.record.file,
                "created": _time(one.record.created),
                "path": one.record.path,
                "bytes": one.record.bytes,
                "action": one.action.value,
                "reason": one.why,
                "message": one.message or None,
            }
            for one in done
        ],
        "bytes": {action.value: disk_use([one.record for one in done if one.action is action]) for action in Pruning},
        "exit": int(exitcode.of_pruning(done)),
    }


def undo(image: TreatedImage, code: Exit) -> Document:
    """``smfix.undo/1``. Its `status` is ``rolled-back`` where the image is as it was before."""
    return {
        "schema": "smfix.undo/1",
        "id": image.outcome.journal,
        "path": image.path,
        "names": names(image.names),
        "outcome": outcome(image.outcome),
        "exit": int(code),
    }


def show(path: str, image: VhdImage) -> Document:
    """``smfix.show/1``: every structure with its place, its fields, and what is wrong with it."""
    bat = image.bat.value if isinstance(image.bat, Sound) else None
    batmap = image.batmap
    header = batmap.value.header if isinstance(batmap, Sound) else None
    return {
        "schema": "smfix.show/1",
        "path": path,
        "size": image.size,
        "end_of_headers": image.end_of_headers,
        "end_of_data": image.end_of_data,
        "footer": _structure(image.end, _value(image.end)),
        "backup_footer": _structure(image.backup, _value(image.backup)),
        "header": _structure(image.header, _value(image.header)),
        "bat": _structure(image.bat, None if bat is None else {"entries": len(bat), "allocated": bat.allocated}),
        "batmap": _structure(batmap, None if header is None else _fields(header)),
        "parent_locators": [
            {"index": found.index, "path": found.path, **_fields(found.entry)} for found in image.locators
        ],
        "exit": 0,
    }


def _value(structure: Sound[Any] | Damaged | None) -> Document | None:
    return _fields(structure.value) if isinstance(structure, Sound) else None


def _structure(found: Sound[Any] | Damaged | None, fields: Document | None) -> Document | None:
    """A structure, null where the image has none; its fields are null where it is damaged."""
    if found is None:
        return None
    return {
        "offset": found.where.offset,
        "length": found.where.length,
        "sound": isinstance(found, Sound),
        "reasons": list(found.reasons) if isinstance(found, Damaged) else [],
        "fields": fields,
    }


def _fields(structure: Footer | Header | ParentLocator | BatmapHeader) -> Document:
    """The fields by name: cookies and creators as text, UUIDs as UUIDs, other bytes as hex."""
    from smfix.formats.vhd.structs import uuid_text

    named: Document = {}
    for name in (field.name for field in dataclasses.fields(structure)):
        value = getattr(structure, name)
        if name in ("cookie", "creator_app"):
            named[name] = value.rstrip(b"\0").decode("latin-1")
        elif name in ("uuid", "parent_uuid"):
            named[name] = uuid_text(value)
        elif name != "locators":
            named[name] = plain(value)
    return named


def error(message: str, bits: Exit) -> Document:
    """``smfix.error/1``: the one document when a command could not do its work at all."""
    return {"schema": "smfix.error/1", "message": message, "exit": int(bits)}
