from __future__ import annotations

from report_values import PATH, SR, VDI, WHEN, outcome
from smfix.report import journals
from smfix.values import JournalRecord, NextStep, Reason, Resize, Status, StepKind, TreatedImage, Write
from steps import as_it_is

ID = "20251122-221903-3f9a1c"
WHOLE = JournalRecord(
    ID,
    "verified",
    f"/j/{ID}.verified",
    created=WHEN,
    path=PATH,
    vdi=VDI,
    sr=SR,
    old_size=1500,
    new_size=2560,
    edits=(Resize(2048), Write(2048, bytes(512))),
    fixes=(("VHD101", "the footer is lost"), ("VHD101", "again"), ("VHD102", "odd")),
    lost_sectors=2,
    command=("smfix", "repair", "/a b"),
    undo=NextStep(StepKind.UNDO, (ID,)),
    bytes=3408,
)
DAMAGED = JournalRecord(ID, "unfinished", f"/j/{ID}.unfinished", damage="its checksum does not match")


def test_no_journal():
    assert journals.listing([], "/j\x1b") == "No journal in /j\\x1b (--journal-dir names another)."
    assert journals.pruned([], "/j") == "No journal in /j (--journal-dir names another)."


def test_listing():
    assert journals.listing([WHOLE, DAMAGED], "/j") == (
        f"{ID}  verified    2012-05-15 00:18:35+00:00  VHD101, VHD102\n"
        f"   path     {PATH}\n"
        f"{ID}  unfinished  damaged\n"
        f"   path     /j/{ID}.unfinished\n"
        "\n2 journals, 3,408 bytes. More: smfix journal ID"
    )


def test_detail():
    shown = journals.detail(WHOLE).splitlines()
    assert shown[0] == f"{ID}  [verified]"
    assert f"   VDI      {VDI}" in shown
    assert "   by       smfix repair '/a b'" in shown
    assert "   fixed    VHD101 the footer is lost" in shown
    assert "            VHD102 odd" in shown
    assert "   wrote    NUL from the old end to byte 2,048" in shown
    assert "   size     1,500 to 2,560 bytes" in shown
    assert "   lost     2 guest sectors" in shown
    assert shown[-1] == f"   undo     smfix undo {ID}"


def test_detail_of_little():
    shown = journals.detail(JournalRecord(ID, "undone", "/j/x", path=PATH)).splitlines()
    assert [line.split()[0] for line in shown] == [ID, "file", "path", "made"]
    assert journals.detail(DAMAGED).endswith("   damaged  its checksum does not match")


def test_proposal():
    assert journals.proposal(WHOLE) == (
        f"{PATH}\n"
        f"   undo     the repair of 2012-05-15 00:18:35+00:00, journal\n"
        f"            {ID}\n"
        "   plan     512 bytes that were written go back to what they were\n"
        "            the file gets its old size, 1,500 bytes"
    )
    same = JournalRecord(ID, "verified", "/j/x", old_size=512, new_size=512)
    assert "old size" not in journals.proposal(same)
    newer = journals.proposal(WHOLE._replace(newer="guest bytes 0 to 511, written since"))
    assert "lost     guest bytes 0 to 511, written since" in newer


def test_undone():
    refused = outcome(Status.REFUSED, reason=Reason.STALE, message="moved on", next=(as_it_is("one"),))
    assert journals.undone(TreatedImage(PATH, refused)) == (
        f"{PATH}\n   result   refused (stale): moved on\n   next     one"
    )
    done = outcome(Status.ROLLED_BACK, message="as before", next=())
    assert journals.undone(TreatedImage(PATH, done)) == (f"{PATH}\n   result   undone: as before")
    foreseen = outcome(Status.WOULD_REPAIR, message="nothing was written", next=())
    assert journals.undone(TreatedImage(PATH, foreseen)) == (
        f"{PATH}\n   result   would be undone: nothing was written"
    )
