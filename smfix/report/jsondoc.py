"""Make the JSON documents of the contract from values (schemas: docs/schema/). Pure.

Times are ISO 8601 with offset, offsets and sizes bytes, UUIDs lower case, unknown is null, and no
key is ever missing: the keys are literals here, or all fields of a value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import Enum
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from smfix.report import exitcode
from smfix.report.journals import disk_use
from smfix.report.next_steps import command_line
from smfix.values import (
    CheckedImage,
    Edit,
    Exit,
    Extent,
    Finding,
    JournalRecord,
    LogReading,
    NextStep,
    Outcome,
    Pruned,
    Pruning,
    Rescan,
    Resize,
    TreatedImage,
    TreatedIncident,
    Write,
)

if TYPE_CHECKING:
    from smfix.formats.base import Shown

Document = dict[str, Any]
_ENCODER = json.JSONEncoder(indent=1, allow_nan=False)
_TOKENS = 4096
"""Tokens of JSON (a key, a value, a bracket) that are written together."""


def dumps(document: Document) -> str:
    """Return one document as text: ASCII only (so it cannot act on a terminal), with a newline at the end."""
    return _ENCODER.encode(document) + "\n"


class Rows(list[Any]):
    """A list of a document that may be larger than memory: `each` makes a new iterator over its items.

    A subclass of list, because the encoder of the standard library iterates over lists only.
    """

    def __init__(self, each: Callable[[], Iterator[Any]]) -> None:
        super().__init__()
        self.each = each

    def __bool__(self) -> bool:
        """Return True if there is an item."""
        return any(True for _ in self.each())

    def __iter__(self) -> Iterator[Any]:
        """Yield the items."""
        return self.each()


def pieces(document: Document) -> Iterator[str]:
    """Yield the text of :func:`dumps` piece by piece; values may be :class:`Rows`."""
    tokens = chain(_ENCODER.iterencode(document), "\n")
    while piece := "".join(islice(tokens, _TOKENS)):
        yield piece


def plain(value: object) -> Any:
    """Convert `value` for JSON: enums by value, times as text, bytes as hex, tuples as lists.

    An :class:`smfix.values.Extent` becomes ``{"offset", "length"}``.
    """
    if value is None or type(value) in _SCALARS:
        return value
    match value:
        case Enum():
            return value.value
        case datetime():
            return value.isoformat()
        case bytes():
            return value.hex()
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case NextStep():
            return command_line(value)
        case tuple() if hasattr(value, "_asdict"):
            return {key: plain(item) for key, item in value._asdict().items()}
        case Sequence() | set() | frozenset():
            return [plain(item) for item in value]
        case _:
            return str(value)


_SCALARS = {bool, int, float, str}


def picked(value: object, names: str) -> Document:
    """Return the attributes `names` (separated by blanks) of `value`, converted for JSON."""
    return {name: plain(getattr(value, name)) for name in names.split()}


# --------------------------------------------------------------------------- the shared shapes


def finding(value: Finding) -> Document:
    """FINDING."""
    return picked(value, "code title message severity disposition lossy facts")


def _findings(values: Iterable[Finding]) -> list[Document]:
    return [finding(value) for value in values]


def _edit(value: Edit | Extent) -> Document:
    if isinstance(value, Resize):
        return {"op": "resize", "size": value.size}
    offset, length = value.extent if isinstance(value, Write) else value
    return {"op": "write", "offset": offset, "length": length}


def _plan(edits: Sequence[Edit | Extent]) -> Document | None:
    """Return the plan, null if there is nothing to write."""
    return {"edits": [_edit(edit) for edit in edits]} if edits else None


def outcome(value: Outcome, edits: Sequence[Resize | Extent] = ()) -> Document:
    """OUTCOME. `edits` are those of a plan of which only the extents are known."""
    return {
        **picked(value, "status reason message"),
        "findings": _findings(value.findings),
        "plan": _plan(edits if value.plan is None else value.plan.edits),
        "remaining": _findings(value.remaining),
        **picked(value, "lost_sectors journal undo next"),
        "recovered": [picked(one, "journal state wrote message") for one in value.recovered],
    }


def _rescans(values: Sequence[Rescan]) -> list[Document]:
    fields = "sr name done message unhealthy_before unhealthy_after gc coalesce next"
    return [picked(value, fields) for value in values]


def incident(value: TreatedIncident, edits: Sequence[Resize | Extent] = ()) -> Document:
    """Return one incident of ``from-log``; `edits` as for :func:`outcome`."""
    reported = value.incident
    return {
        **picked(value, "id vdi sr path names"),
        **picked(reported, "host kinds first_seen last_seen count"),
        "state": value.state.value,
        **picked(reported, "evidence"),
        "outcome": None if value.outcome is None else outcome(value.outcome, edits),
    }


# --------------------------------------------------------------------------- the documents


def from_log(reading: LogReading, incidents: Sequence[TreatedIncident], rescans: Sequence[Rescan] = ()) -> Document:
    """``smfix.from-log/1``."""
    outcomes = [treated.outcome for treated in incidents if treated.outcome is not None]
    return {
        "schema": "smfix.from-log/1",
        "log": picked(reading, "files bytes first last year_assumed zone_assumed since until"),
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
                **picked(image, "path verdict size end_of_data"),
                "findings": _findings(image.findings),
                **picked(image, "note names"),
            }
            for image in images
        ],
        "exit": int(exitcode.of_checks(images)),
    }


def repair(images: Sequence[TreatedImage], rescans: Sequence[Rescan] = ()) -> Document:
    """``smfix.repair/1``."""
    return {
        "schema": "smfix.repair/1",
        "images": [picked(image, "path names") | {"outcome": outcome(image.outcome)} for image in images],
        "rescans": _rescans(rescans),
        "exit": int(exitcode.of_images(images)),
    }


def journal(records: Sequence[JournalRecord]) -> Document:
    """``smfix.journal/1``."""
    return {
        "schema": "smfix.journal/1",
        "journals": [
            {
                **picked(record, "id state file damage created path vdi sr old_size new_size"),
                "edits": [_edit(edit) for edit in record.edits],
                "fixes": [{"code": code, "message": message} for code, message in record.fixes],
                **picked(record, "lost_sectors command undo bytes"),
            }
            for record in records
        ],
        "bytes": disk_use(records),
        "exit": 0,
    }


def prune(done: Sequence[Pruned], older_than: str) -> Document:
    """``smfix.prune/1``: the result for each journal."""
    return {
        "schema": "smfix.prune/1",
        "older_than": older_than,
        "journals": [
            {
                **picked(one.record, "id state file created path bytes"),
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
    """``smfix.undo/1``. Its `status` is ``rolled-back`` if the image is as it was before."""
    return {
        "schema": "smfix.undo/1",
        "id": image.outcome.journal,
        **picked(image, "path names"),
        "outcome": outcome(image.outcome),
        "exit": int(code),
    }


def show(path: str, image: Shown) -> Document:
    """``smfix.show/1``: every structure with its place, its fields, and the reasons against it."""
    return {"schema": "smfix.show/1", "path": path, **plain(image.fields), "exit": 0}


def error(message: str, bits: Exit) -> Document:
    """``smfix.error/1``: the one document when a command could not do its work at all."""
    return {"schema": "smfix.error/1", "message": message, "exit": int(bits)}
