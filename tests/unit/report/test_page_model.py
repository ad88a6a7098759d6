"""What the page says of each disk: in which order, how much of it, and when it happened."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from images import base, lost_footer, seen
from report_values import CLOCK, LOST_FOOTER, PATH, SR, VDI, WHEN, incident, outcome, plan, reading, treated
from smfix.formats.vhd.diagram import diagram
from smfix.report import page_model
from smfix.report.page_model import Card, Side
from smfix.values import (
    CheckedImage,
    Evidence,
    Extent,
    InUse,
    Names,
    Reason,
    ScannedImage,
    State,
    Status,
    TreatedImage,
    Verdict,
    Write,
)

NAMED = Names("data disk", "SR one", ("mail", "web"))


def test_an_incident_that_was_repaired():
    card = page_model.of_incident(treated(names=NAMED))
    assert (card.title, card.path, card.status, card.tone) == (VDI, PATH, "repaired", "good")
    assert card.rows[0] == ("SR", f"{SR} (SR one)")
    assert card.wrong == "footer lost (VHD101)"
    assert card.mended == ("the backup footer was appended as the footer",)
    assert card.plan == ("NUL from the old end to byte 2,048", "512 bytes at offset 2,048")
    assert card.is_written
    assert card.is_calm
    assert card.undo == "smfix undo 20251122-221903-3f9a1c"
    assert (card.first, card.last) == (WHEN, WHEN.replace(microsecond=129850))
    assert card.lost is None


def test_one_that_was_refused_and_names_a_loss():
    value = outcome(
        Status.REFUSED, reason=Reason.NEEDS_CONFIRM, message="asks", lost_sectors=3, remaining=(LOST_FOOTER,)
    )
    card = page_model.of_incident(treated(outcome=value))
    assert (card.status, card.tone, card.is_calm) == ("refused (needs-confirm)", "waiting", False)
    assert card.lost == "3 guest sectors of 512 bytes"
    assert card.remaining == ()
    assert not card.is_written


def test_one_that_is_over():
    card = page_model.of_incident(treated(outcome=None, state=State.RESOLVED))
    assert (card.status, card.tone) == ("resolved", "calm")
    assert card.wrong.startswith("nothing any more")


def test_one_that_the_log_calls_resolved_and_is_damaged():
    card = page_model.of_incident(treated(incident=incident(state=State.RESOLVED, host="h", sr=None), sr=None))
    assert card.rows[0] == ("SR", "the log does not say")
    assert ("host", "h") in card.rows
    assert card.rows[-1][1].startswith("the log calls it resolved")


def test_without_findings_the_log_has_the_word():
    card = page_model.of_incident(treated(outcome=outcome(Status.NOT_FOUND, findings=(CLOCK,), plan=None)))
    assert card.wrong == "the log says: footer-invalid, coalesce-corrupted"
    assert card.plan == ()


def test_evidence_is_bounded():
    lines = tuple(Evidence("SMlog", number, "x" * 5000) for number in range(100))
    card = page_model.of_incident(treated(incident=incident(evidence=lines)))
    assert len(card.evidence) == page_model.LINES
    assert card.more_evidence == 100 - page_model.LINES
    assert card.evidence[0].text.endswith("x (1,000 more characters)")


def test_a_long_plan_is_bounded():
    edits = tuple(Write(n * 512, b"x") for n in range(20))
    card = page_model.of_incident(treated(outcome=outcome(plan=plan(edits=edits), remaining=(CLOCK,))))
    assert len(card.plan) == page_model.EDITS + 1
    assert card.plan[-1] == "and 8 more edits"
    assert card.remaining == (CLOCK,)


def test_targets():
    card = page_model.of_image(TreatedImage(PATH, outcome(), names=NAMED))
    assert (card.title, card.rows) == (VDI, (("SR", "SR one"),))
    assert page_model.of_image(TreatedImage("/dev/", outcome(), sr=SR)).title == "/dev/"
    checked = CheckedImage(PATH, Verdict.INVALID, 512, 0, (LOST_FOOTER, CLOCK), "held by 12")
    card = page_model.of_check(checked)
    assert card.rows == (("size", "512 bytes"), ("data ends at", "byte 0"), ("note", "held by 12"))
    assert (card.tone, card.wrong) == ("bad", "footer lost (VHD101)")
    assert page_model.of_check(CheckedImage(PATH, Verdict.VALID)).tone == "good"
    card = page_model.of_scan(ScannedImage(checked, sr=SR, virtual_size=1 << 20, in_use=InUse.READ_ONLY))
    assert card.rows[-3:] == (("SR", SR), ("guest's disk", "1,048,576 bytes"), ("held open", "read-only"))
    assert page_model.of_scan(ScannedImage(CheckedImage(PATH, Verdict.VALID))).rows == (("held open", "unknown"),)


def test_every_status_has_a_tone():
    assert {page_model.of_image(TreatedImage("/x", outcome(status))).tone for status in Status} <= {
        "good",
        "waiting",
        "bad",
    }


# --------------------------------------------------------------------------- when


def card(first, last) -> Card:
    return Card("x", None, first=first, last=last)


def test_the_timeline_is_the_logs_span():
    log = reading(first=WHEN, last=WHEN + timedelta(hours=10))
    hour = timedelta(hours=1)
    drawn = page_model.timeline(log, [card(WHEN, WHEN + hour), card(None, None), card(WHEN + 10 * hour, None)])
    assert [(mark.start, mark.width) for mark in drawn.marks] == [(0, 100), (1000 - page_model.NARROWEST, 4)]
    assert [mark.number for mark in drawn.marks] == [1, 3]
    assert drawn.span == "2012-05-15 00:18:35 to 10:18:35+00:00"
    assert drawn.marks[1].when == "2012-05-15 10:18:35+00:00"


def test_the_timeline_begins_with_the_earliest():
    log = reading(first=WHEN, last=WHEN + timedelta(hours=10))
    hour = timedelta(hours=1)
    drawn = page_model.timeline(log, [card(WHEN + 5 * hour, WHEN + 6 * hour), card(WHEN, WHEN + hour)])
    assert [(mark.number, mark.start) for mark in drawn.marks] == [(2, 0), (1, 500)]


def test_a_clock_that_jumps_back_stays_inside():
    log = reading(first=WHEN, last=WHEN)
    day = timedelta(days=1)
    drawn = page_model.timeline(log, [card(WHEN + day, WHEN - day), card(None, WHEN)])
    for mark in drawn.marks:
        assert mark.start >= 0
        assert mark.start + mark.width <= 1000


def test_no_time_no_timeline():
    assert page_model.timeline(reading(first=None, last=None), [card(None, None)]) is None


# --------------------------------------------------------------------------- how it looks


@pytest.mark.parametrize(("raw", "cell"), [(lost_footer(base()), page_model.CELLS - 1), (base(), None)])
def test_where_a_footer_belongs(raw, cell):
    side = Side("now", diagram(seen(raw)), ())
    assert side.home_cell == cell
    assert sum(bar.cells for bar in side.bars) == page_model.CELLS


def test_where_a_devices_footer_belongs():
    drawn = diagram(seen(lost_footer(base())))
    device = replace(drawn, home=drawn.size - 512)
    assert Side("now", device, ()).home_cell == page_model.CELLS - 1
    unmarked = replace(device, pieces=tuple(p for p in drawn.pieces if p.where != Extent(drawn.size - 512, 512)))
    assert Side("now", unmarked, ()).home_cell is not None
