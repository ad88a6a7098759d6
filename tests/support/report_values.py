"""Values for the tests of smfix.report: one of everything, with every field set to something."""

from __future__ import annotations

from datetime import UTC, datetime

from smfix.values import (
    Disposition,
    Evidence,
    Extent,
    Finding,
    Fingerprint,
    Incident,
    LogReading,
    NextStep,
    Outcome,
    RepairPlan,
    Resize,
    Severity,
    State,
    Status,
    StepKind,
    TreatedIncident,
    VdiRef,
    Write,
)

VDI = "1d994938-058e-102f-80dc-001ec95cb0b6"
SR = "7a142a29-9556-ee47-1e04-1a8517813369"
PATH = f"/run/sr-mount/{SR}/{VDI}.vhd"
WHEN = datetime(2012, 5, 15, 0, 18, 35, 127755, tzinfo=UTC)

LOST_FOOTER = Finding(
    "VHD101",
    "footer lost",
    "the footer at the end is gone; the backup footer is sound and nothing contradicts it",
    Severity.ERROR,
    Disposition.SAFE,
    facts={"where": Extent(1024, 512), "reasons": ("invalid cookie",)},
)
CLOCK = Finding("VHD902", "clock", "made in the future", Severity.INFO, Disposition.REPORT)


def plan(**changes) -> RepairPlan:
    values = {
        "edits": (Resize(2048), Write(2048, bytes(512))),
        "fixes": (LOST_FOOTER,),
        "remaining": (),
        "lost": (),
        "refusal": None,
        "fingerprint": Fingerprint(1500, ()),
    }
    return RepairPlan(**{**values, **changes})


def outcome(status: Status = Status.REPAIRED, **changes) -> Outcome:
    values = {
        "message": "one finding cleared; checked again on a fresh open",
        "findings": (LOST_FOOTER,),
        "plan": plan(),
        "journal": "20251122-221903-3f9a1c",
        "undo": NextStep(StepKind.UNDO, ("20251122-221903-3f9a1c",)),
        "next": (NextStep(StepKind.SCAN_SR, (SR,)),),
    }
    return Outcome(status, **{**values, **changes})


def incident(**changes) -> Incident:
    values = {
        "vdi": VdiRef(VDI),
        "sr": SR,
        "path": PATH,
        "kinds": ("footer-invalid", "coalesce-corrupted"),
        "first_seen": WHEN,
        "last_seen": WHEN.replace(microsecond=129850),
        "count": 1,
        "evidence": (Evidence("SMlog", 1, "[26919] FAILED: (errno 22) stdout: 'primary"),),
    }
    return Incident(**{**values, **changes})


def treated(**changes) -> TreatedIncident:
    values = {
        "id": "0123456789ab",
        "incident": incident(),
        "vdi": VDI,
        "sr": SR,
        "path": PATH,
        "state": State.OPEN,
        "outcome": outcome(),
    }
    return TreatedIncident(**{**values, **changes})


def reading(**changes) -> LogReading:
    values = {
        "files": ("SMlog",),
        "bytes": 4096,
        "first": WHEN,
        "last": WHEN,
        "year_assumed": False,
        "zone_assumed": True,
        "incidents": (),
    }
    return LogReading(**{**values, **changes})
