"""What a follower tells: a line for people, a table of what waits, samples for a collector."""

from __future__ import annotations

import json

from report_values import PATH, SR, VDI, outcome, treated
from smfix.report import follow_report, jsondoc
from smfix.values import Reason, State, Status


def told(value=None, **changes):
    """The event's document of one incident."""
    incident = jsondoc.incident(treated(outcome=value, **changes))
    return follow_report.event(7, "2026-01-02T03:04:05+00:00", "repaired", incident)


def test_a_line_is_one_line_of_ascii():
    raw = follow_report.line(told(outcome(message="gr\u00fcn\n\x1b")))
    assert raw.isascii()
    assert raw.count("\n") == 1
    assert json.loads(raw)["number"] == 7


def test_a_report_that_nobody_has_looked_at():
    shown = follow_report.sentence(told(state=State.RESOLVED, path=None)).splitlines()
    assert shown[0] == f"2026-01-02T03:04:05+00:00  repaired   {VDI}  SR {SR}"
    assert shown[1] == "   reported: footer-invalid, coalesce-corrupted (1 report)"
    nowhere = follow_report.sentence(told(state=State.RESOLVED, path=None, sr=None))
    assert "an SR the log does not name" in nowhere


def test_what_became_of_it_and_what_to_type():
    shown = follow_report.sentence(told(outcome(Status.REFUSED, reason=Reason.IN_USE, message="held\x1b", undo=None)))
    assert PATH in shown
    assert "   refused (in-use): held\\x1b\n" in shown
    assert f"   next: xe sr-scan uuid={SR}\n" in shown
    assert "undo" not in shown
    assert "   undo: smfix undo " in follow_report.sentence(told(outcome()))


def _follower(**changes):
    values = {"log": "/var/log/SMlog", "pid": 12, "running": True, "unread": 5, "gaps": 0, "lost": 0, "incidents": []}
    return {**values, **changes}


def _waiting(stage, value=None, reason=None):
    return {"stage": stage, "since": "2026-01-02", "reason": reason, "incident": told(value)["incident"]}


def test_the_table():
    assert follow_report.table([]).startswith("No log has been followed")
    assert follow_report.table([_follower()]) == (
        "/var/log/SMlog: followed by process 12; 5 bytes unread\n  no incident"
    )
    incidents = [
        _waiting("waiting", outcome(Status.REFUSED, message="asks"), "needs-confirm"),
        _waiting("seen"),
        _waiting("confirmed", outcome()),
        _waiting("repaired", outcome()),
    ]
    shown = follow_report.table([_follower(running=False, unread=None, gaps=2, lost=9, incidents=incidents)])
    assert "not followed now; not there now" in shown
    assert "text was gone 2 times before it was read (9 bytes known)" in shown
    assert "1 waiting, 1 seen, 1 confirmed, 1 repaired" in shown
    assert f"  waiting    2026-01-02                {VDI} needs-confirm\n      asks\n" in shown
    assert f"      next: xe sr-scan uuid={SR}" in shown
    assert shown.count(VDI) == 3


def test_the_status_document():
    assert follow_report.status([_follower()], 4) == {"schema": "smfix.status/1", "followers": [_follower()], "exit": 4}


def test_metrics():
    samples = [("incidents", {"stage": 'a"b\\'}, 2), ("incidents", {"stage": "seen"}, 1), ("repairs_total", {}, 0.5)]
    assert follow_report.metrics(samples) == (
        "# smfix metrics, written by `smfix from-log --follow`\n"
        "# HELP smfix_incidents Incidents by the stage they are in.\n"
        "# TYPE smfix_incidents gauge\n"
        'smfix_incidents{stage="a\\"b\\\\"} 2\n'
        'smfix_incidents{stage="seen"} 1\n'
        "# HELP smfix_repairs_total Images repaired and verified.\n"
        "# TYPE smfix_repairs_total counter\n"
        "smfix_repairs_total{} 0.5\n"
    )


def test_metrics_are_known_by_their_first_line():
    assert follow_report.is_metrics(follow_report.metrics([]).encode())
    assert follow_report.is_metrics(b"# HELP smfix_incidents Incidents")  # written before there was such a line
    assert not follow_report.is_metrics(b"# HELP node_load1 1m load average.\n")
    assert not follow_report.is_metrics(b"conectix")


def test_a_state_that_cannot_be_read_is_shown():
    assert follow_report.table([_follower(note="x\x1b: no state")]) == "x\\x1b: no state"
