"""One host's ``--json`` document -> what it says of disks that are or were in trouble. Pure.

Documents come from other machines and other versions: all of it is hostile. What is taken is bounded and of the
form it must have; a document that is not is refused whole, in one line. A newer smfix may say more: keys, statuses
and reasons that are not known here are passed over or taken as text.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple

from smfix.sm.paths import is_uuid, read_path

MOST_VALUES = 2_000_000
"""Commas and brackets of one document: what Python makes of it stays below some 150 MB."""
MOST_DISKS = 20_000
"""Disks in trouble that one document may name; what is beyond is counted."""
_MESSAGE, _NAME, _EACH = 300, 200, 32
_CODE = re.compile(r"VHD[0-9]{3}\Z")
_WORD = re.compile(r"[a-z][a-z0-9-]{0,39}\Z")
_SCHEMA = re.compile(r"smfix\.([a-z-]{1,20})/([0-9]{1,3})\Z")
REPORTED, RESOLVED = "reported", "resolved"
"""Statuses of incidents without an outcome: nobody has looked; the log says it is over."""
SOUND_VERDICTS = ("valid", "in-use")


class NotADocument(Exception):
    """It is no document that can be merged; the text says why."""


class DiskObservation(NamedTuple):
    """One disk in trouble as one document tells it. `status` is an outcome's, a verdict, or one of the above."""

    vdi: str
    sr: str | None
    path: str | None
    status: str
    reason: str | None = None
    message: str = ""
    codes: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    first: datetime | None = None
    last: datetime | None = None
    undo: str | None = None
    host: str | None = None


class Said(NamedTuple):
    """What one document says.

    `images` are the images that were looked at, each as a number of 64 bits that stands for it everywhere.
    `trouble`: what the host could not do. `left_out`: disks beyond the bound.
    """

    kind: str
    sights: tuple[DiskObservation, ...] = ()
    images: Sequence[int] = ()
    trouble: tuple[str, ...] = ()
    left_out: int = 0


def read_document(data: bytes) -> Said:
    """What the document in `data` says. Raises NotADocument."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MOST_VALUES:
        raise NotADocument(f"it holds more than {MOST_VALUES:,} values")
    try:
        # UTF-8 only: json would take a text of NULs for UTF-32.
        document = json.loads(data.decode("utf-8-sig"), parse_constant=_no_constant)
    except RecursionError as error:
        raise NotADocument("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise NotADocument(f"it is not UTF-8 (byte {error.start:,})") from error
    except ValueError as error:
        raise NotADocument(f"it is not JSON, or not whole ({_cut(str(error), 80)})") from error
    if not isinstance(document, dict):
        raise NotADocument("it is JSON, but not a document of smfix")
    found = _SCHEMA.match(_text(document, "schema", "the document"))
    reader = _READERS.get(found[1]) if found else None
    if found is None or reader is None:
        raise NotADocument(f"it is {_cut(str(document['schema']), 40)!r}, which is not merged here")
    if found[2] != "1":
        raise NotADocument(f"its schema is {found[0]}, which a later smfix writes")
    return reader(document)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


# --------------------------------------------------------------------------- each kind


def _from_log(document: dict[str, Any]) -> Said:
    incidents = _list(document, "incidents", "the document")
    return _said("from-log", (_incident(one, f"incidents[{n}]") for n, one in enumerate(incidents)))


def _status(document: dict[str, Any]) -> Said:
    followers = [_dict(one, f"followers[{n}]") for n, one in enumerate(_list(document, "followers", "the document"))]
    trouble = tuple(_cut(one["note"], _MESSAGE) for one in followers if isinstance(one.get("note"), str))

    def sights() -> Iterator[DiskObservation]:
        for number, follower in enumerate(followers):
            where = f"followers[{number}]"
            for index, case in enumerate(_list(follower, "incidents", where)):
                each = f"{where}.incidents[{index}]"
                sight = _incident(_dict(case, each).get("incident"), f"{each}.incident")
                is_over = case.get("stage") == "confirmed" and sight.status == REPORTED
                yield sight._replace(status=RESOLVED) if is_over else sight

    return _said("status", sights())._replace(trouble=trouble[:_EACH])


def _check(document: dict[str, Any]) -> Said:
    return _looked_at("check", document)


def _scan(document: dict[str, Any]) -> Said:
    return _looked_at("scan", document)


def _looked_at(kind: str, document: dict[str, Any]) -> Said:
    seen = array("Q")

    def sights() -> Iterator[DiskObservation]:
        for number, given in enumerate(_list(document, "images", "the document")):
            where = f"images[{number}]"
            image = _dict(given, where)
            path, verdict = _text(image, "path", where), _word(image, "verdict", where)
            name = read_path(path)
            vdi = _uuid(image.get("vdi")) or name.vdi or ""
            sr = _uuid(image.get("sr")) or name.sr
            seen.append(_number(sr, vdi, path))
            if verdict in SOUND_VERDICTS:
                continue
            note = image.get("note")
            yield DiskObservation(
                vdi,
                sr,
                _cut(path, _NAME),
                verdict,
                message=_cut(note, _MESSAGE) if isinstance(note, str) else "",
                codes=_codes(image.get("findings"), where),
            )

    said = _said(kind, sights())
    return said._replace(images=seen)


def _repair(document: dict[str, Any]) -> Said:
    def sights() -> Iterator[DiskObservation]:
        for number, given in enumerate(_list(document, "images", "the document")):
            where = f"images[{number}]"
            image = _dict(given, where)
            path = _text(image, "path", where)
            name = read_path(path)
            sight = DiskObservation(name.vdi or "", name.sr, _cut(path, _NAME), "")
            yield _with_outcome(sight, _dict(image.get("outcome"), f"{where}.outcome"), f"{where}.outcome")

    return _said("repair", sights())


def _error(document: dict[str, Any]) -> Said:
    return Said("error", trouble=(_cut(_text(document, "message", "the document"), _MESSAGE),))


_READERS: dict[str, Callable[[dict[str, Any]], Said]] = {
    "from-log": _from_log,
    "status": _status,
    "check": _check,
    "scan": _scan,
    "repair": _repair,
    "error": _error,
}


# --------------------------------------------------------------------------- the shared shapes


def _said(kind: str, sights: Iterator[DiskObservation]) -> Said:
    """The first MOST_DISKS of `sights`; the rest is read all the same, so that it is well-formed and counted."""
    kept: list[DiskObservation] = []
    left_out = 0
    for sight in sights:
        if len(kept) < MOST_DISKS:
            kept.append(sight)
        else:
            left_out += 1
    return Said(kind, tuple(kept), left_out=left_out)


def _incident(given: object, where: str) -> DiskObservation:
    incident = _dict(given, where)
    vdi = _text(incident, "vdi", where).lower()
    path = incident.get("path")
    kinds = [word for word in _list(incident, "kinds", where) if isinstance(word, str) and _WORD.match(word)]
    sight = DiskObservation(
        _cut(vdi, 36),
        _uuid(incident.get("sr")),
        _cut(path, _NAME) if isinstance(path, str) else None,
        RESOLVED if incident.get("state") == "resolved" else REPORTED,
        kinds=tuple(kinds[:_EACH]),
        first=_time(incident, "first_seen", where),
        last=_time(incident, "last_seen", where),
    )
    outcome = incident.get("outcome")
    return sight if outcome is None else _with_outcome(sight, _dict(outcome, f"{where}.outcome"), f"{where}.outcome")


def _with_outcome(sight: DiskObservation, outcome: dict[str, Any], where: str) -> DiskObservation:
    reason, undo = outcome.get("reason"), outcome.get("undo")
    return sight._replace(
        status=_word(outcome, "status", where),
        reason=reason if isinstance(reason, str) and _WORD.match(reason) else None,
        message=_cut(_text(outcome, "message", where), _MESSAGE),
        codes=_codes(outcome.get("findings"), where),
        undo=undo if isinstance(undo, str) and len(undo) <= _MESSAGE else None,
    )


def _codes(findings: object, where: str) -> tuple[str, ...]:
    """The codes of findings that say that something is wrong, in order, each once."""
    if not isinstance(findings, list):
        raise NotADocument(f"{where}.findings is not a list")
    wrong = (one for one in findings if isinstance(one, dict) and one.get("severity") != "info")
    codes = (one.get("code") for one in wrong)
    return tuple(dict.fromkeys(code for code in codes if isinstance(code, str) and _CODE.match(code)))[:_EACH]


def _number(sr: str | None, vdi: str, path: str) -> int:
    """64 bits that stand for an image: of its SR and VDI, else of its path. Two share one once in 2**32 images."""
    name = f"{sr}/{vdi}" if vdi else path
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _dict(value: object, where: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise NotADocument(f"{where} is not an object")


def _list(document: dict[str, Any], key: str, where: str) -> list[Any]:
    value = document.get(key)
    if isinstance(value, list):
        return value
    raise NotADocument(f"{key} of {where} is not a list")


def _text(document: dict[str, Any], key: str, where: str) -> str:
    value = document.get(key)
    if isinstance(value, str):
        return value
    raise NotADocument(f"{key} of {where} is not text")


def _word(document: dict[str, Any], key: str, where: str) -> str:
    value = _text(document, key, where)
    if _WORD.match(value):
        return value
    raise NotADocument(f"{key} of {where} is {_cut(value, 40)!r}")


def _uuid(value: object) -> str | None:
    return value.lower() if isinstance(value, str) and is_uuid(value.lower()) else None


def _time(document: dict[str, Any], key: str, where: str) -> datetime | None:
    value = document.get(key)
    if value is None:
        return None
    try:
        return datetime.fromisoformat(_text(document, key, where)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise NotADocument(f"{key} of {where} is not a time") from error


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
