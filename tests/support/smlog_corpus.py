"""The truth corpus: each log in fixtures/logs stands beside the incidents it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from smfix.errors import Unreadable
from smfix.smlog.reader import read_logs
from smfix.values import Incident, LogReading

LOGS = Path(__file__).resolve().parents[2] / "fixtures" / "logs"
TRUTHS = sorted(LOGS.glob("*.incidents.json"))


def log_of(truth: Path) -> Path:
    """``x.log.incidents.json`` tells what ``x.log`` holds."""
    return truth.with_name(truth.name.removesuffix(".incidents.json"))


def read_truth(truth: Path) -> LogReading:
    """The reading of the log that belongs to `truth`, with the options it was written for."""
    return read(log_of(truth), json.loads(truth.read_text(encoding="utf-8"))["options"])


def read(log: Path, options: dict[str, Any]) -> LogReading:
    """The reading of `log`; an empty one of what is refused as no log at all."""
    try:
        return read_logs([str(log)], tz=options.get("tz", "UTC"), year=options.get("year"), since=None, until=None)
    except Unreadable as error:
        if "no storage log" not in str(error):
            raise
        return LogReading((str(log),), 0, None, None, False, False, ())


def as_truth(incident: Incident) -> dict[str, object]:
    """An incident in the form of the truth files; line numbers stand for the evidence."""
    return {
        "vdi": incident.vdi.text,
        "sr": incident.sr,
        "path": incident.path,
        "kinds": list(incident.kinds),
        "first_seen": incident.first_seen.isoformat() if incident.first_seen else None,
        "last_seen": incident.last_seen.isoformat() if incident.last_seen else None,
        "count": incident.count,
        "state": incident.state.value,
        "copy": incident.copy,
        "candidates": list(incident.candidates),
        "format": incident.format,
        "lines": [line.line for line in incident.evidence],
        "proof": [line.line for line in incident.proof],
    }
