from __future__ import annotations

from report_values import (
    CLOCK,
    LOST_FOOTER,
    PATH,
    SR,
    VDI,
    incident,
    outcome,
    plan,
    reading,
    treated,
)
from smfix.report import text
from smfix.values import (
    CheckedImage,
    Evidence,
    Names,
    Reason,
    Rescan,
    Resize,
    State,
    Status,
    TreatedImage,
    Verdict,
    Write,
)
from steps import as_it_is


def test_a_card_says_it_all():
    card = text.incident(1, treated())
    assert (
        card
        == f"""\
1. {VDI}  [repaired]
   SR       7a142a29-9556-ee47-1e04-1a8517813369
   path     {PATH}
   seen     2012-05-15 00:18:35.127755 to 00:18:35.129850+00:00 (1 report)
   kinds    footer-invalid, coalesce-corrupted
   found    VHD101 (SAFE) the footer at the end is gone; the backup footer is
            sound and nothing contradicts it
   wrote    the backup footer was appended as the footer:
            NUL from the old end to byte 2,048
            512 bytes at offset 2,048
   result   repaired: one finding cleared; checked again on a fresh open
   undo     smfix undo 20251122-221903-3f9a1c
   next     xe sr-scan uuid=7a142a29-9556-ee47-1e04-1a8517813369
   log      SMlog:1
            [26919] FAILED: (errno 22) stdout: 'primary"""
    )


def test_what_the_pool_calls_them_and_what_became_of_the_srs():
    card = text.incident(1, treated(names=Names("data", "fast", ("web", "mail"))))
    assert f"SR       {SR} (fast)" in card
    assert "\n   disk     data\n   VMs      web, mail\n" in card
    rescans = [
        Rescan(SR, "fast", True, "scanned", 2, 1, next=(as_it_is("xe sr-list"),)),
        Rescan(SR, None, True, "scanned", 2, None),
        Rescan(SR, None, False, "left out"),
    ]
    told = text.from_log(reading(), [treated()], rescans)
    assert f"   SR       {SR} (fast): scanned\n" in told
    assert "   chains   unhealthy: 2 before the scan, 1 right after it\n   next     xe sr-list\n" in told
    assert "2 before the scan, unknown right after it" in told
    assert f"   SR       {SR}: left out\n" in told


def test_a_resolved_incident_has_nothing_to_do():
    card = text.incident(2, treated(outcome=None, state=State.RESOLVED, path=None, sr=None))
    assert card.startswith(f"2. {VDI}  [resolved]\n   SR       the log does not say\n   seen")
    assert "nothing to do" in card


def test_a_reopened_incident_says_so():
    told = incident(state=State.RESOLVED, host="xen1")
    card = text.incident(1, treated(incident=told))
    assert "[repaired; the log calls it resolved]" in card
    assert "\n   host     xen1\n" in card


def test_long_evidence_is_the_first_lines_and_the_last():
    lines = tuple(Evidence("SMlog", n, f"line {n} \x1b[2J") for n in range(1, 10))
    card = text.incident(1, treated(incident=incident(evidence=lines)))
    assert [f"SMlog:{n}\n" in card for n in (1, 2, 3, 4, 8, 9)] == [True] * 3 + [False] * 2 + [True]
    assert "(5 more lines in --json)" in card
    assert "\x1b" not in card


def test_a_refusal_names_its_reason_and_its_plan():
    value = outcome(
        Status.REFUSED,
        reason=Reason.NEEDS_CONFIRM,
        message="needs consent to VHD108",
        plan=plan(edits=tuple(Write(n * 512, b"x") for n in range(9))),
        lost_sectors=1,
        undo=None,
        next=(as_it_is("one"), as_it_is("two")),
    )
    card = text.repair([TreatedImage(PATH, value)])
    assert card.startswith(f"{PATH}\n   found    VHD101")
    assert "   plan     append the footer, a copy of the one at offset 0:\n            1 byte at offset 0\n" in card
    assert "            and 3 more edits\n" in card
    assert "   result   refused (needs-confirm): needs consent to VHD108\n" in card
    assert "   lost     1 guest sector of 512 bytes" in card
    assert card.endswith("   next     one\n            two")


def test_what_is_left_is_named_once():
    left = text.repair([TreatedImage(PATH, outcome(Status.PARTLY_REPAIRED, remaining=(CLOCK,)))])
    assert "   left     VHD902 (REPORT, info) made in the future" in left
    same = text.repair([TreatedImage(PATH, outcome(remaining=(LOST_FOOTER,)))])
    assert "left" not in same


def test_an_image_without_findings():
    value = outcome(Status.VALID, findings=(), plan=None, message="sound", undo=None, next=())
    assert text.repair([TreatedImage(PATH, value)]) == f"{PATH}\n   result   valid: sound"


def test_the_whole_report():
    sound = treated(outcome=outcome(Status.VALID))
    resolved = treated(outcome=None, state=State.RESOLVED)
    refused = treated(outcome=outcome(Status.REFUSED, reason=Reason.IN_USE))
    report = text.from_log(
        reading(files=("SMlog", "SMlog.1", "b"), year_assumed=True, notes=("said",)),
        [treated(), sound, resolved, refused],
    )
    assert report.startswith("Read 4,096 bytes of SMlog and 2 more files.\nIt covers 2012-05-15")
    assert "no year: the latest that fits was assumed" in report
    assert "no time zone" in report
    assert "\nsaid\n" in report
    assert "\n4 incidents: 1 repaired, 1 already sound, 1 already resolved, 1 left.\n" in report


def test_the_sum_names_only_what_there_is():
    assert text.from_log(reading(), [treated()]).endswith("\n\n1 incident: 1 repaired, 0 left.")


def test_what_is_repaired_in_part_is_counted_once():
    partly = treated(outcome=outcome(Status.PARTLY_REPAIRED))
    refused = treated(outcome=outcome(Status.REFUSED, reason=Reason.IN_USE))
    assert text.sum_up([treated(), partly]) == "2 incidents: 1 repaired, 1 left (repaired in part)."
    assert text.sum_up([partly, refused]) == "2 incidents: 0 repaired, 2 left (1 of them repaired in part)."


def test_a_card_of_a_disk_without_a_uuid_has_a_heading():
    assert text.incident(1, treated(vdi="")).startswith("1. a disk without a UUID  [repaired]\n")


def test_a_log_without_incidents():
    quiet = reading(files=("-",), first=None, last=None, zone_assumed=False)
    assert text.from_log(quiet, []) == ("Read 4,096 bytes of standard input.\n\nNo damaged disk is named in this log.")
    assert text.from_log(reading(bytes=0, first=None, last=None), []).endswith("in this log.")
    assert text.from_log(reading(), []).endswith("in this log.")
    assert text.log_read(reading(files=(), bytes=0)).startswith("Read 0 bytes of no file.")
    assert text.log_read(reading(bytes=0)).startswith("Read 0 bytes of SMlog.\nThere is nothing in it.\n")


def test_older_logs_that_were_not_read_are_named():
    one = text.log_read(reading(beside=("/l/SMlog.1",), wider=as_it_is("smfix from-log /l")))
    assert one.endswith("1 older log beside it was not read (SMlog.1). To read all of them:\n   smfix from-log /l")
    many = tuple(f"/l/SMlog.{number}.gz" for number in range(1, 6))
    assert "5 older logs beside it were not read (SMlog.1.gz, SMlog.2.gz, SMlog.3.gz, ...)." in " ".join(
        text.log_read(reading(beside=many)).split()
    )


def test_what_was_set_aside():
    assert text.set_aside(reading()) == "No report of trouble was set aside."
    assert text.set_aside(reading(noise=(("a lock was busy", 1),))) == (
        "1 report of trouble was set aside, because it names no damaged VHD:\n   1        a lock was busy"
    )


def test_check():
    report = text.check(
        [
            CheckedImage(PATH, Verdict.INVALID, 4096, 2048, (LOST_FOOTER,)),
            CheckedImage("/x", Verdict.UNREADABLE, note="cannot open /x"),
            CheckedImage("/y", Verdict.VALID, 512),
        ]
    )
    first, second, third = report.split("\n\n")
    assert first.startswith(f"{PATH}\n   verdict  invalid\n   size     4,096 bytes, data ends at 2,048\n   found")
    gone = CheckedImage("/x", Verdict.UNREADABLE, said="ambiguous", next=(as_it_is("a"), as_it_is("b")))
    assert text.check([gone]) == "/x\n   verdict  ambiguous\n   next     a\n            b"
    assert second == "/x\n   verdict  unreadable\n   note     cannot open /x"
    assert third == "/y\n   verdict  valid\n   size     512 bytes"


def test_a_check_says_who_is_whose_parent():
    leaf = CheckedImage("/sr/leaf.vhd", Verdict.VALID, parent=PATH)
    twin = CheckedImage("/sr/twin.vhd", Verdict.VALID, parent=PATH)
    first, second, third = text.check([leaf, CheckedImage(PATH, Verdict.INVALID), twin]).split("\n\n")
    assert f"   verdict  valid\n   chain    breaks at {PATH} (invalid)" in first
    assert second.endswith("   chain    parent of /sr/leaf.vhd\n            parent of /sr/twin.vhd")
    assert "breaks at" in third


def test_a_proposal_shows_what_would_be_written():
    shown = text.proposal(PATH, outcome(Status.WOULD_REPAIR, plan=plan(edits=(Resize(4096),))))
    assert shown.splitlines()[0] == PATH
    assert "   found    VHD101" in shown
    assert shown.endswith(
        "   plan     append the footer, a copy of the one at offset 0:\n            NUL from the old end to byte 4,096"
    )


def test_a_proposal_without_findings_says_what_it_is_about():
    shown = text.proposal(PATH, outcome(Status.WOULD_REPAIR, findings=(), plan=None, message="put back first"))
    assert shown == f"{PATH}\n   plan     put back first"


def test_the_time_that_was_asked_about_is_said():
    asked = reading(since=reading().first, until=reading().first)
    assert "Only reports from 2012-05-15 00:18:35.127755+00:00 up to 2012-05-15" in text.from_log(asked, ())
    assert text.from_log(asked, ()).endswith("No damaged disk is named in this log in that time.")
    assert "Only reports up to 2012" in text.from_log(reading(until=reading().first), ())


def test_several_disks_end_with_what_is_left():
    one = treated(outcome=outcome(Status.NOT_FOUND, next=(as_it_is("xe vdi-list uuid=1"),)))
    assert "What is left" not in text.from_log(reading(), (one,))
    both = text.from_log(reading(), (one, treated()))
    assert both.endswith("not found on this host: 1d994938 (card 1)\n      xe vdi-list uuid=1")
    assert "What is left" not in text.from_log(reading(), (treated(), treated()))


def test_of_several_images_too():
    bad = TreatedImage(PATH, outcome(Status.FAILED, next=(as_it_is("again"),)))
    assert "What is left" not in text.repair((bad,))
    assert "failed: 1d994938, 1d994938 (cards 1-2)\n      again" in text.repair((bad, bad))


def test_what_became_of_a_disk_that_somebody_agreed_to():
    assert text.repaired_now(None, outcome(message="repaired and verified")).startswith(
        "   result   repaired and verified\n   undo "
    )
    assert text.repaired_now("/a\x1b", outcome(undo=None)).startswith("\n/a\\x1b\n   result ")
