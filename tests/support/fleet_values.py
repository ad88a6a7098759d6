"""Documents of hosts for the tests of the fleet: small, whole, and valid by their schemas."""

from __future__ import annotations

import json
from typing import Any

from schemas import valid
from world import BASE, LEAF, OTHER, SR

SHARED = "11111111-9556-ee47-1e04-1a8517813369"
WHEN = "2026-11-20T10:00:00+01:00"
NAMES: dict[str, Any] = {"vdi": None, "sr": None, "vms": []}
__all__ = ["BASE", "LEAF", "OTHER", "SHARED", "SR", "WHEN"]


def finding(code: str = "VHD101", severity: str = "error") -> dict[str, Any]:
    return {
        "code": code,
        "title": "t",
        "message": "m",
        "severity": severity,
        "disposition": "SAFE",
        "lossy": False,
        "facts": {},
    }


def outcome(
    status: str = "repaired", reason: str | None = None, *, codes: tuple[str, ...] = ("VHD101",)
) -> dict[str, Any]:
    return {
        "status": status,
        "reason": reason,
        "message": f"{status} it is",
        "findings": [finding(code) for code in codes],
        "plan": None,
        "remaining": [],
        "lost_sectors": 0,
        "journal": None,
        "undo": "smfix undo 1" if status == "repaired" else None,
        "next": [],
        "recovered": [],
    }


def incident(vdi: str = BASE, sr: str | None = SR, how: dict[str, Any] | None = None, **other: Any) -> dict[str, Any]:
    return {
        "id": "0123456789ab",
        "vdi": vdi,
        "sr": sr,
        "path": None,
        "host": None,
        "names": NAMES,
        "kinds": ["footer-invalid"],
        "first_seen": WHEN,
        "last_seen": WHEN,
        "count": 1,
        "state": "open",
        "evidence": [],
        "outcome": how,
    } | other


def from_log(*incidents: dict[str, Any]) -> dict[str, Any]:
    log = {"files": ["SMlog"], "bytes": 1, "first": WHEN, "last": WHEN, "year_assumed": False, "zone_assumed": False}
    log |= {"since": None, "until": None}
    return valid(
        {
            "schema": "smfix.from-log/1",
            "log": log,
            "incidents": list(incidents),
            "rescans": [],
            "summary": {"incidents": len(incidents), "repaired": 0, "left": 0},
            "exit": 0,
        }
    )


def check(*images: tuple[str, str], note: str | None = None) -> dict[str, Any]:
    """(path, verdict) each."""
    return valid(
        {
            "schema": "smfix.check/1",
            "images": [
                {
                    "path": path,
                    "verdict": verdict,
                    "size": 1,
                    "end_of_data": None,
                    "findings": [finding()] if verdict == "invalid" else [finding("VHD901", "info")],
                    "note": note,
                    "names": NAMES,
                }
                for path, verdict in images
            ],
            "exit": 0,
        }
    )


def path_of(vdi: str, sr: str = SR) -> str:
    return f"/run/sr-mount/{sr}/{vdi}.vhd"


def error(message: str) -> dict[str, Any]:
    return valid({"schema": "smfix.error/1", "message": message, "exit": 8})


def raw(document: Any) -> bytes:
    return json.dumps(document).encode()
