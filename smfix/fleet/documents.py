"""Read one host's ``--json`` document: the disks that are or were in trouble. Pure.

Documents come from other machines and other versions, so all input is hostile. Every value is checked and bounded; a
malformed document is refused whole, with one line. A newer smfix may write more: unknown keys are ignored, unknown
statuses and reasons are taken as text.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple

from smfix.sm.paths import is_uuid, read_path

MOST_VALUES = 2_000_000
"""Commas and brackets of one document: as Python objects they take less than about 150 MB."""
MOST_DISKS = 20_000
"""Disks in trouble that are read from one document; the others are only counted."""
_MESSAGE, _NAME, _EACH = 300, 200, 32
_CODE = re.compile(r"[A-Z]{3}[0-9]{3}\Z")
_WORD = re.compile(r"[a-z][a-z0-9-]{0,39}\Z")
_SCHEMA = re.compile(r"smfix\.([a-z-]{1,20})/([0-9]{1,3})\Z")
REPORTED, RESOLVED = "reported", "resolved"
"""Statuses of incidents without an outcome: no image was inspected, or the log shows that the incident is over."""
SOUND_VERDICTS = ("valid", "in-use")


class NotADocument(Exception):
    """The file is no document that can be merged; the text says why."""


class DiskObservation(NamedTuple):
    """One disk in trouble, from one document. `status`: an outcome's status, a verdict, REPORTED or RESOLVED."""

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


class HostDocument(NamedTuple):
    """The content of one document.

    `images`: a 64-bit number for each image that was inspected; the same image has the same number in every
    document. `trouble`: errors of the host. `left_out`: how many disks exceeded :data:`MOST_DISKS`.
    """

    kind: str
    observations: tuple[DiskObservation, ...] = ()
    images: Sequence[int] = ()
    trouble: tuple[str, ...] = ()
    left_out: int = 0


def read_document(data: bytes) -> HostDocument:
    """Read the document in `data`. Raises NotADocument."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MOST_VALUES:
        raise NotADocument(f"it holds more than {MOST_VALUES:,} values")
    try:
        # UTF-8 only: json would take a text of NULs for UTF-32.
        document = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
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
        raise NotADocument(f"it is {_cut(str(document['schema']), 40)!r}, which cannot be merged")
    if found[2] != "1":
        raise NotADocument(f"its schema is {found[0]}, which only a newer smfix reads")
    return reader(document)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


# --------------------------------------------------------------------------- each kind


def _from_log(document: dict[str, Any]) -> HostDocument:
    incidents = _list(document, "incidents", "the document")
    return _collect("from-log", (_incident(one, f"incidents[{n}]") for n, one in enumerate(incidents)))


def _status(document: dict[str, Any]) -> HostDocument:
    followers = [_dict(one, f"followers[{n}]") for n, one in enumerate(_list(document, "followers", "the document"))]
    trouble = tuple(_cut(one["note"], _MESSAGE) for one in followers if isinstance(one.get("note"), str))

    def observations() -> Iterator[DiskObservation]:
        for number, follower in enumerate(followers):
            where = f"followers[{number}]"
            for index, case in enumerate(_list(follower, "incidents", where)):
                each = f"{where}.incidents[{index}]"
                observation = _incident(_dict(case, each).get("incident"), f"{each}.incident")
                is_over = case.get("stage") == "confirmed" and observation.status == REPORTED
                yield observation._replace(status=RESOLVED) if is_over else observation

    return _collect("status", observations())._replace(trouble=trouble[:_EACH])


def _check(document: dict[str, Any]) -> HostDocument:
    return _read_images("check", document)


def _scan(document: dict[str, Any]) -> HostDocument:
    return _read_images("scan", document)


def _read_images(kind: str, document: dict[str, Any]) -> HostDocument:
    images = array("q")

    def observations() -> Iterator[DiskObservation]:
        for number, given in enumerate(_list(document, "images", "the document")):
            where = f"images[{number}]"
            image = _dict(given, where)
            path, verdict = _text(image, "path", where), _word(image, "verdict", where)
            name = read_path(path)
            vdi = _uuid(image.get("vdi")) or name.vdi or ""
            sr = _uuid(image.get("sr")) or name.sr
            images.append(_number(sr, vdi, path))
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

    # `images` is read after the generator has filled it.
    return _collect(kind, observations())._replace(images=images)


def _repair(document: dict[str, Any]) -> HostDocument:
    def observations() -> Iterator[DiskObservation]:
        for number, given in enumerate(_list(document, "images", "the document")):
            where = f"images[{number}]"
            image = _dict(given, where)
            path = _text(image, "path", where)
            name = read_path(path)
            observation = DiskObservation(name.vdi or "", name.sr, _cut(path, _NAME), "")
            yield _with_outcome(observation, _dict(image.get("outcome"), f"{where}.outcome"), f"{where}.outcome")

    return _collect("repair", observations())


def _error(document: dict[str, Any]) -> HostDocument:
    return HostDocument("error", trouble=(_cut(_text(document, "message", "the document"), _MESSAGE),))


_READERS: dict[str, Callable[[dict[str, Any]], HostDocument]] = {
    "from-log": _from_log,
    "status": _status,
    "check": _check,
    "scan": _scan,
    "repair": _repair,
    "error": _error,
}


# --------------------------------------------------------------------------- the shared shapes


def _collect(kind: str, observations: Iterator[DiskObservation]) -> HostDocument:
    """Keep the first MOST_DISKS of `observations`; read and count the others, so that the whole document is checked."""
    kept = tuple(islice(observations, MOST_DISKS))
    return HostDocument(kind, kept, left_out=sum(1 for _ in observations))


def _incident(given: object, where: str) -> DiskObservation:
    incident = _dict(given, where)
    vdi = _text(incident, "vdi", where).lower()
    path = incident.get("path")
    kinds = [word for word in _list(incident, "kinds", where) if isinstance(word, str) and _WORD.match(word)]
    observation = DiskObservation(
        _cut(vdi, 36),
        _uuid(incident.get("sr")),
        _cut(path, _NAME) if isinstance(path, str) else None,
        RESOLVED if incident.get("state") == "resolved" else REPORTED,
        kinds=tuple(kinds[:_EACH]),
        first=_time(incident, "first_seen", where),
        last=_time(incident, "last_seen", where),
    )
    outcome = incident.get("outcome")
    return (
        observation
        if outcome is None
        else _with_outcome(observation, _dict(outcome, f"{where}.outcome"), f"{where}.outcome")
    )


def _with_outcome(observation: DiskObservation, outcome: dict[str, Any], where: str) -> DiskObservation:
    reason, undo = outcome.get("reason"), outcome.get("undo")
    return observation._replace(
        status=_word(outcome, "status", where),
        reason=reason if isinstance(reason, str) and _WORD.match(reason) else None,
        message=_cut(_text(outcome, "message", where), _MESSAGE),
        codes=_codes(outcome.get("findings"), where),
        undo=undo if isinstance(undo, str) and len(undo) <= _MESSAGE else None,
    )


def _codes(findings: object, where: str) -> tuple[str, ...]:
    """Return the codes of the findings that are not infos, in order, each once."""
    if not isinstance(findings, list):
        raise NotADocument(f"{where}.findings is not a list")
    wrong = (one for one in findings if isinstance(one, dict) and one.get("severity") != "info")
    codes = (one.get("code") for one in wrong)
    return tuple(dict.fromkeys(code for code in codes if isinstance(code, str) and _CODE.match(code)))[:_EACH]


def _number(sr: str | None, vdi: str, path: str) -> int:
    """Hash an image to 64 bits, signed: by its SR and VDI, else by its path. Two of 2**32 images share a hash."""
    name = f"{sr}/{vdi}" if vdi else path
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big", signed=True)


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
