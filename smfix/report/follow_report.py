"""Render a follower's events, status and metrics: JSON lines, text, Prometheus. Pure.

The shapes are the contract's (`smfix.follow/1`) and docs/schema/status.schema.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from smfix.report.escape import printable
from smfix.report.layout import counted

Document = dict[str, Any]
_HELP = {
    "incidents": ("gauge", "Incidents by the stage they are in."),
    "repairs_total": ("counter", "Images repaired and verified."),
    "events_total": ("counter", "Events reported, by kind."),
    "log_bytes_total": ("counter", "Bytes of the log that were read."),
    "log_unread_bytes": ("gauge", "Bytes of the log that wait to be read."),
    "log_gaps_total": ("counter", "How often text of the log was gone before it was read."),
    "log_lost_bytes_total": ("counter", "Bytes of the log that were seen and never read."),
    "reports_left_out_total": ("counter", "Reports beyond the bound of incidents."),
    "hook_failures_total": ("counter", "Hooks that failed or took too long."),
    "last_look_seconds": ("gauge", "When the log was last looked at (Unix time)."),
}


def line(document: Document) -> str:
    """Return one document as one line: ASCII only."""
    return json.dumps(document, allow_nan=False) + "\n"


def event(number: int, moment: str, name: str, incident: Document) -> Document:
    """Return one line of ``from-log --follow --json``. `number` counts the events of this log's follower."""
    return {"schema": "smfix.follow/1", "time": moment, "event": name, "incident": incident, "number": number}


def sentence(document: Document) -> str:
    """Return the event as text: time, event, disk, and what to do."""
    incident = document["incident"]
    outcome = incident["outcome"]
    place = incident["path"] or (f"SR {incident['sr']}" if incident["sr"] else "an SR the log does not name")
    parts = [f"{document['time']}  {document['event']:<10} {incident['vdi']}  {place}"]
    if outcome is None:
        parts.append(f"   reported: {', '.join(incident['kinds'])} ({counted(incident['count'], 'report')})")
    else:
        why = f" ({outcome['reason']})" if outcome["reason"] else ""
        parts.append(f"   {outcome['status']}{why}: {outcome['message']}")
        parts += [f"   undo: {outcome['undo']}"] if outcome["undo"] else []
        parts += [f"   next: {step}" for step in outcome["next"]]
    return "\n".join(printable(part) for part in parts) + "\n"


# --------------------------------------------------------------------------- status


def status(followers: Sequence[Document], code: int) -> Document:
    """Return the document of ``smfix status --json``."""
    return {"schema": "smfix.status/1", "followers": list(followers), "exit": code}


def table(followers: Sequence[Document]) -> str:
    """Return the status as text: each follower, and a line or two for each incident that is not over."""
    parts = [_follower(one) for one in followers]
    return "\n\n".join(parts) if parts else "No log has been followed on this machine (with this --state-dir)."


def _follower(one: Document) -> str:
    if one.get("note"):  # its state cannot be read
        return printable(one["note"])
    state = f"followed by process {one['pid']}" if one["running"] else "not followed now"
    read = f"{counted(one['unread'], 'byte')} unread" if one["unread"] is not None else "not there now"
    lines = [f"{one['log']}: {state}; {read}"]
    if one["gaps"]:
        lines.append(f"  text was gone {one['gaps']} times before it was read ({counted(one['lost'], 'byte')} known)")
    stages: dict[str, int] = {}
    for each in one["incidents"]:
        stages[each["stage"]] = stages.get(each["stage"], 0) + 1
    lines.append("  " + (", ".join(f"{number} {name}" for name, number in stages.items()) or "no incident"))
    shown = [each for each in one["incidents"] if each["stage"] != "confirmed"]
    if shown:
        lines.append(f"  {'STAGE':<10} {'SINCE':<25} {'VDI':<36} WHY")
    for each in shown:
        why = each["reason"] or ""
        lines.append(f"  {each['stage']:<10} {each['since']:<25} {each['incident']['vdi']:<36} {why}".rstrip())
        outcome = each["incident"]["outcome"]
        if outcome is not None and each["stage"] in ("waiting", "recurred"):
            lines.append(f"      {outcome['message']}")
            lines += [f"      next: {step}" for step in outcome["next"]]
    return "\n".join(printable(each) for each in lines)


# --------------------------------------------------------------------------- metrics


METRICS_MARK = "# smfix metrics, written by `smfix from-log --follow`"
"""The first line of a metrics file. Before there was one, it began with the first metric's help."""


def is_metrics(head: bytes) -> bool:
    """The first bytes of a file are those of metrics made here."""
    return head.startswith((METRICS_MARK.encode(), b"# HELP smfix_"))


def metrics(samples: Iterable[tuple[str, Mapping[str, str], float]]) -> str:
    """Return (name, labels, value) in Prometheus' text format, for node-exporter's textfile collector.

    Source: the exposition format's description (version 0.0.4).
    """
    by_name: dict[str, list[str]] = {}
    for name, labels, value in samples:
        marked = ",".join(f'{key}="{_label(text)}"' for key, text in labels.items())
        by_name.setdefault(name, []).append(f"smfix_{name}{{{marked}}} {round(value, 3)}")
    lines = [METRICS_MARK]
    for name, rows in by_name.items():
        kind, words = _HELP[name]
        lines += [f"# HELP smfix_{name} {words}", f"# TYPE smfix_{name} {kind}", *rows]
    return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
