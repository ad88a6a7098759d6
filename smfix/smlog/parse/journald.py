"""Lines of ``journalctl -o json``: one object each, the message in MESSAGE.

Pure. Source: systemd.journal-fields(7) and journalctl(1), "Output of the json mode".
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

from smfix.smlog.parse.prefixes import PID
from smfix.smlog.parse.timestamps import Stamp
from smfix.smlog.patterns import pattern

_PID = pattern(PID)


class Entry(NamedTuple):
    """One entry of the journal, as a line of a log."""

    stamp: Stamp | None
    host: str | None
    ident: str
    pid: int | None
    text: str
    thread: str | None = None


def read_entry(line: str) -> Entry | None:
    """Return the entry that `line` holds, None if it is not an object with a MESSAGE."""
    if '"MESSAGE"' not in line:
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    message = _text(entry.get("MESSAGE")) if isinstance(entry, dict) else None
    if message is None:
        return None
    found = _PID.match(message)
    pid = found["pid"] if found else str(entry.get("_PID") or "")
    return Entry(
        stamp=_stamp(str(entry.get("__REALTIME_TIMESTAMP") or "")),
        host=_text(entry.get("_HOSTNAME")),
        ident=_text(entry.get("SYSLOG_IDENTIFIER")) or "",
        pid=int(pid) if pid.isascii() and pid.isdigit() and len(pid) < 8 else None,
        text=message[found.end() :] if found else message,
        thread=found["thread"] if found else None,
    )


def _text(value: Any) -> str | None:
    """Return a field's text. journalctl writes invalid UTF-8 as a list of bytes."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in value):
        return bytes(value).decode("utf-8", "replace")
    return None


def _stamp(microseconds: str) -> Stamp | None:
    """Return the time of an entry: microseconds since 1970, UTC."""
    if not (microseconds.isascii() and microseconds.isdigit() and len(microseconds) < 18):
        return None
    seconds, fraction = divmod(int(microseconds), 1_000_000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return Stamp(*moment.timetuple()[:6], fraction, 0)
