"""What a follower knows, as one text that it is restored from: versioned, checked, bounded. Pure.

Everything that must survive a SIGKILL stands in it: where the log was read to, each incident with its
life and what became of its disk, and the events that nobody is known to have been told yet. It is
written whole each time; :mod:`smfix.follow.state_store` makes that atomic.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from smfix.follow.incident_state import IncidentState, Stage
from smfix.smlog.correlate.failures import Failure, Quote
from smfix.smlog.inputs.tail_position import Head, Mark, Position
from smfix.smlog.parse.timestamps import Stamp
from smfix.smlog.rules.resolutions import Proof, Strength
from smfix.smlog.rules.tool_output import Weight

SCHEMA = "smfix.state/1"
MOST_CASES = 2_000
"""Incidents that are remembered; beyond, the longest settled are forgotten first."""
Document = dict[str, Any]


class StateDamaged(ValueError):
    """The text is no ledger, or not one of this version."""


@dataclass(slots=True)
class TrackedIncident:
    """One incident. `first` and `last` are its first and last report, `proof` what ended it.

    `vdi`, `sr` and `path` are what the log says, `disk` is the image's path here. `document` is the
    contract's incident as it was told last, with its outcome.
    """

    id: str
    vdi: str
    sr: str | None
    path: str | None
    life: IncidentState
    first: Failure
    last: Failure
    kinds: tuple[str, ...]
    candidates: tuple[str, ...]
    count: int
    quotes: tuple[Quote, ...]
    copy: bool
    first_seen: datetime | None
    last_seen: datetime | None
    proof: Proof | None = None
    document: Document | None = None
    disk: str | None = None


@dataclass(slots=True)
class PendingEvent:
    """An event on its way out: its document, and whether it was printed."""

    document: Document
    is_printed: bool = False


@dataclass(slots=True)
class FollowerState:
    """All of it.

    `place` is where the position lies in the logical text of all logs (bytes), `settled` the place up to
    which every report was taken. `number` counts the events told, `totals` what the metrics count.
    `repairs` are (path, time) of the last day. `files` are the names behind the quotes' indexes.
    """

    log: str
    position: Position = field(default_factory=Position)
    place: int = 0
    settled: int = 0
    number: int = 0
    files: list[str] = field(default_factory=list)
    cases: dict[str, TrackedIncident] = field(default_factory=dict)
    outbox: list[PendingEvent] = field(default_factory=list)
    repairs: list[tuple[str, datetime]] = field(default_factory=list)
    totals: dict[str, int] = field(default_factory=dict)
    follower: Document = field(default_factory=dict)


# --------------------------------------------------------------------------- writing


def encode(ledger: FollowerState, fragments: dict[str, str] | None = None) -> str:
    """The text. `fragments` are cases encoded before, by id: only what is missing there is done anew."""
    known = {} if fragments is None else fragments
    for case in ledger.cases.values():
        if case.id not in known:
            known[case.id] = json.dumps(_plain(case), allow_nan=False)
    head = {
        "schema": SCHEMA,
        "log": ledger.log,
        "position": _plain(ledger.position),
        "place": ledger.place,
        "settled": ledger.settled,
        "number": ledger.number,
        "files": ledger.files,
        "outbox": _plain(ledger.outbox),
        "repairs": _plain(ledger.repairs),
        "totals": ledger.totals,
        "follower": ledger.follower,
    }
    cases = ",\n".join(known[name] for name in ledger.cases)
    return f'{json.dumps(head, allow_nan=False)[:-1]},\n"cases": [\n{cases}\n]}}\n'


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case bytes():
            return value.hex()
        case Stage() | Weight() | Strength():
            return value.name
        case Failure() | Proof():
            return {name: _plain(one) for name, one in value._asdict().items()}
        case list() | tuple():
            return [_plain(one) for one in value]
        case _ if dataclasses.is_dataclass(value):
            return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
        case _:
            return value


# --------------------------------------------------------------------------- reading


def decode(text: str) -> FollowerState:
    """The ledger that `text` holds. Raises LedgerDamaged."""
    try:
        document = json.loads(text)
        if document["schema"] != SCHEMA:
            raise StateDamaged(f"its schema is {document['schema']!r}, this smfix reads {SCHEMA!r}")
        return FollowerState(
            log=_text(document["log"]),
            position=_position(document["position"]),
            place=int(document["place"]),
            settled=int(document["settled"]),
            number=int(document["number"]),
            files=[_text(name) for name in document["files"]],
            cases={case.id: case for case in map(_case, document["cases"])},
            outbox=[PendingEvent(dict(one["document"]), bool(one["is_printed"])) for one in document["outbox"]],
            repairs=[(_text(path), datetime.fromisoformat(at)) for path, at in document["repairs"]],
            totals={_text(name): int(number) for name, number in document["totals"].items()},
            follower=dict(document["follower"]),
        )
    except StateDamaged:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise StateDamaged(f"{type(error).__name__}: {error}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise StateDamaged(f"{value!r} is not text")
    return value


def _maybe(read: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else read(value)


def _texts(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(_text(value) for value in values)


def _head(value: Document) -> Head:
    return Head(int(value["size"]), _text(value["digest"]))


def _position(value: Document) -> Position:
    return Position(
        mark=_maybe(_mark, value["mark"]),
        done=tuple(_head(one) for one in value["done"]),
        gaps=int(value["gaps"]),
        lost=int(value["lost"]),
    )


def _mark(value: Document) -> Mark:
    return Mark(
        device=int(value["device"]),
        inode=int(value["inode"]),
        head=_head(value["head"]),
        tail=bytes.fromhex(value["tail"]),
        offset=int(value["offset"]),
        line=int(value["line"]),
        seen=int(value["seen"]),
    )


def _stamp(value: list[Any]) -> Stamp:
    return Stamp(*(_maybe(int, part) for part in value))


def _quote(value: list[Any]) -> Quote:
    file, number, text = value
    return Quote(int(file), int(number), _text(text))


def _voice(value: list[Any]) -> tuple[str | None, int]:
    host, origin = value
    return _maybe(_text, host), int(origin)


def _failure(value: Document) -> Failure:
    return Failure(
        place=int(value["place"]),
        file=int(value["file"]),
        stamp=_maybe(_stamp, value["stamp"]),
        voice=_voice(value["voice"]),
        pid=_maybe(int, value["pid"]),
        vdi=_text(value["vdi"]),
        sr=_maybe(_text, value["sr"]),
        path=_maybe(_text, value["path"]),
        kinds=_texts(value["kinds"]),
        weight=Weight[value["weight"]],
        evidence=tuple(_quote(one) for one in value["evidence"]),
        copy=bool(value["copy"]),
        format=_text(value["format"]),
        candidates=_texts(value["candidates"]),
        fresh=bool(value["fresh"]),
    )


def _proof(value: Document) -> Proof:
    return Proof(
        place=int(value["place"]),
        voice=_voice(value["voice"]),
        vdi=_text(value["vdi"]),
        sr=_maybe(_text, value["sr"]),
        strength=Strength[value["strength"]],
        evidence=tuple(_quote(one) for one in value["evidence"]),
    )


def _life(value: Document) -> IncidentState:
    return IncidentState(
        stage=Stage[value["stage"]],
        since=datetime.fromisoformat(value["since"]),
        reason=_maybe(_text, value["reason"]),
        due=_maybe(datetime.fromisoformat, value["due"]),
        tries=int(value["tries"]),
        told=_maybe(datetime.fromisoformat, value["told"]),
        reminders=int(value["reminders"]),
        trying=_maybe(datetime.fromisoformat, value["trying"]),
    )


def _case(value: Document) -> TrackedIncident:
    return TrackedIncident(
        id=_text(value["id"]),
        vdi=_text(value["vdi"]),
        sr=_maybe(_text, value["sr"]),
        path=_maybe(_text, value["path"]),
        life=_life(value["life"]),
        first=_failure(value["first"]),
        last=_failure(value["last"]),
        kinds=_texts(value["kinds"]),
        candidates=_texts(value["candidates"]),
        count=int(value["count"]),
        quotes=tuple(_quote(one) for one in value["quotes"]),
        copy=bool(value["copy"]),
        first_seen=_maybe(datetime.fromisoformat, value["first_seen"]),
        last_seen=_maybe(datetime.fromisoformat, value["last_seen"]),
        proof=_maybe(_proof, value["proof"]),
        document=_maybe(dict, value["document"]),
        disk=_maybe(_text, value["disk"]),
    )
