"""Encode a follower's state as text, and decode it: versioned, checked. Pure.

The text is JSON: a head, then one line for each incident. Version 1 kept the documents of reports instead of values:
its commands are texts, and become steps that are printed as they are.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterable
from datetime import datetime
from enum import Enum
from typing import Any

from smfix.follow.incident_state import IncidentState, Stage
from smfix.follow.state import DiskObservation, FollowerRun, FollowerState, PendingEvent, TrackedIncident
from smfix.report.jsondoc import plain
from smfix.smlog.correlate.failures import Failure, Quote
from smfix.smlog.inputs.tail_position import Head, Mark, Position
from smfix.smlog.parse.timestamps import Stamp
from smfix.smlog.rules.resolutions import Proof, Strength
from smfix.smlog.rules.tool_output import Weight
from smfix.values import (
    Disposition,
    Evidence,
    Extent,
    Finding,
    Incident,
    Names,
    NextStep,
    Outcome,
    Reason,
    Recovered,
    Resize,
    Severity,
    State,
    Status,
    StepKind,
    VdiRef,
)

SCHEMA = "smfix.state/2"
_SCHEMA_1 = "smfix.state/1"
Document = dict[str, Any]
Encoded = dict[str, tuple[TrackedIncident, str]]
"""Incidents encoded before, by id: a copy of each, and its text."""


class StateDamaged(ValueError):
    """The text is no state, or not one of a version that this smfix reads."""


# --------------------------------------------------------------------------- writing


def encode(state: FollowerState, encoded: Encoded | None = None) -> str:
    """Return the text of `state`. Only incidents that differ from their copies in `encoded` are encoded again."""
    known = {} if encoded is None else encoded
    for name in known.keys() - state.incidents.keys():
        del known[name]
    for tracked in state.incidents.values():
        if tracked.id not in known or known[tracked.id][0] != tracked:
            known[tracked.id] = copy.copy(tracked), json.dumps(_plain(tracked), allow_nan=False)
    head = {"schema": SCHEMA}
    head |= {one.name: _plain(getattr(state, one.name)) for one in dataclasses.fields(state) if one.name != "incidents"}
    incidents = ",\n".join(known[name][1] for name in state.incidents)
    return f'{json.dumps(head, allow_nan=False)[:-1]},\n"incidents": [\n{incidents}\n]}}\n'


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case bytes():
            return value.hex()
        case Stage() | Weight() | Strength():
            return value.name
        case Enum():
            return value.value
        case VdiRef():
            return value.text
        case Quote() | Stamp() | Evidence():
            return list(value)
        case dict():
            return plain(value)
        case tuple() if hasattr(value, "_asdict"):
            return {name: _plain(one) for name, one in value._asdict().items()}
        case list() | tuple():
            return [_plain(one) for one in value]
        case _ if dataclasses.is_dataclass(value):
            return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
        case _:
            return value


# --------------------------------------------------------------------------- reading


def decode(text: str) -> FollowerState:
    """Return the state that `text` holds. Raises StateDamaged."""
    try:
        document = json.loads(text)
        schema = document["schema"]
        if schema not in (SCHEMA, _SCHEMA_1):
            raise StateDamaged(f"its schema is {schema!r}, this smfix reads {SCHEMA!r}")
        is_old = schema == _SCHEMA_1
        tracked = [_tracked(one, is_old=is_old) for one in document["cases" if is_old else "incidents"]]
        return FollowerState(
            log=_text(document["log"]),
            position=_position(document["position"]),
            place=int(document["place"]),
            settled=int(document["settled"]),
            number=int(document["number"]),
            files=[_text(name) for name in document["files"]],
            incidents={one.id: one for one in tracked},
            outbox=[_old_event(one) if is_old else _event(one) for one in document["outbox"]],
            repairs=[(_text(path), datetime.fromisoformat(at)) for path, at in document["repairs"]],
            totals={_text(name): int(number) for name, number in document["totals"].items()},
            run=_run(document["follower" if is_old else "run"]),
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


def _time(value: Any) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)


def _run(value: Document) -> FollowerRun:
    return FollowerRun(_maybe(int, value.get("pid")), _time(value.get("started")), _time(value.get("stopped")))


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


def _progress(value: Document) -> IncidentState:
    return IncidentState(
        stage=Stage[value["stage"]],
        since=datetime.fromisoformat(value["since"]),
        reason=_maybe(_text, value["reason"]),
        due=_time(value["due"]),
        tries=int(value["tries"]),
        announced=_time(value["announced"] if "announced" in value else value["told"]),
        reminders=int(value["reminders"]),
        trying=_time(value["trying"]),
    )


def _tracked(value: Document, *, is_old: bool) -> TrackedIncident:
    return TrackedIncident(
        id=_text(value["id"]),
        vdi=_text(value["vdi"]),
        sr=_maybe(_text, value["sr"]),
        path=_maybe(_text, value["path"]),
        progress=_progress(value["life" if is_old else "progress"]),
        first=_failure(value["first"]),
        last=_failure(value["last"]),
        kinds=_texts(value["kinds"]),
        candidates=_texts(value["candidates"]),
        count=int(value["count"]),
        quotes=tuple(_quote(one) for one in value["quotes"]),
        copy=bool(value["copy"]),
        first_seen=_time(value["first_seen"]),
        last_seen=_time(value["last_seen"]),
        proof=_maybe(_proof, value["proof"]),
        disk=_maybe(_old_disk, value["document"]) if is_old else _maybe(_disk, value["disk"]),
    )


# --------------------------------------------------------------------------- reading: disks and events


def _disk(value: Document) -> DiskObservation:
    return DiskObservation(
        vdi=_text(value["vdi"]),
        sr=_maybe(_text, value["sr"]),
        path=_maybe(_text, value["path"]),
        state=State(value["state"]),
        outcome=_maybe(_outcome, value["outcome"]),
        edits=tuple(_edit(one) for one in value["edits"]),
        names=_names(value["names"]),
    )


def _names(value: Document) -> Names:
    return Names(_maybe(_text, value["vdi"]), _maybe(_text, value["sr"]), _texts(value["vms"]))


def _edit(value: Document) -> Extent | Resize:
    if "size" in value:
        return Resize(int(value["size"]))
    return Extent(int(value["offset"]), int(value["length"]))


def _finding(value: Document) -> Finding:
    return Finding(
        code=_text(value["code"]),
        title=_text(value["title"]),
        message=_text(value["message"]),
        severity=Severity(value["severity"]),
        disposition=Disposition(value["disposition"]),
        lossy=bool(value["lossy"]),
        facts=dict(value["facts"]),
        may_remain=bool(value.get("may_remain", False)),
    )


def _step(value: Document | str) -> NextStep:
    if isinstance(value, str):  # version 1 kept the command line
        return NextStep(StepKind.TEXT, (value,))
    return NextStep(StepKind(value["kind"]), _texts(value["args"]), _texts(value["options"]))


def _outcome(value: Document) -> Outcome:
    return Outcome(
        status=Status(value["status"]),
        message=_text(value["message"]),
        reason=_maybe(Reason, value["reason"]),
        findings=tuple(_finding(one) for one in value["findings"]),
        remaining=tuple(_finding(one) for one in value["remaining"]),
        lost_sectors=int(value["lost_sectors"]),
        journal=_maybe(_text, value["journal"]),
        undo=_maybe(_step, value["undo"]),
        next=tuple(_step(one) for one in value["next"]),
        recovered=tuple(
            Recovered(_text(one["journal"]), _text(one["state"]), bool(one["wrote"]), _text(one["message"]))
            for one in value.get("recovered", ())
        ),
    )


def _incident(value: Document) -> Incident:
    return Incident(
        vdi=VdiRef(_text(value["vdi"])),
        sr=_maybe(_text, value["sr"]),
        path=_maybe(_text, value["path"]),
        kinds=_texts(value["kinds"]),
        first_seen=_time(value["first_seen"]),
        last_seen=_time(value["last_seen"]),
        count=int(value["count"]),
        evidence=tuple(Evidence(_text(file), int(line), _text(text)) for file, line, text in value["evidence"]),
        state=State(value["state"]),
        host=_maybe(_text, value.get("host")),
        candidates=_texts(value.get("candidates", ())),
        copy=bool(value.get("copy", False)),
        format=_text(value.get("format", "vhd")),
    )


def _event(value: Document) -> PendingEvent:
    return PendingEvent(
        number=int(value["number"]),
        time=datetime.fromisoformat(value["time"]),
        name=_text(value["name"]),
        id=_text(value["id"]),
        incident=_incident(value["incident"]),
        disk=_maybe(_disk, value["disk"]),
        is_printed=bool(value["is_printed"]),
    )


def _old_event(value: Document) -> PendingEvent:
    """Read an event of version 1: the document that was to be printed."""
    document = value["document"]
    incident = document["incident"]
    evidence = [(one["file"], one["line"], one["text"]) for one in incident["evidence"]]
    return PendingEvent(
        number=int(document["number"]),
        time=datetime.fromisoformat(document["time"]),
        name=_text(document["event"]),
        id=_text(incident["id"]),
        incident=_incident({**incident, "evidence": evidence}),
        disk=_old_disk(incident),
        is_printed=bool(value["is_printed"]),
    )


def _old_disk(document: Document) -> DiskObservation:
    """Read the document of an incident, of which version 1 kept the last one."""
    plan = None if document["outcome"] is None else document["outcome"]["plan"]
    names = document.get("names", {"vdi": None, "sr": None, "vms": []})
    return _disk({**document, "edits": [] if plan is None else plan["edits"], "names": names})
