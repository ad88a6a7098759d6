"""From events to incidents: one VDI in trouble, once, however often it was reported.

Pure. The FAILED record and the EXCEPTION of one run are one report; the next garbage collection
says the same again, so repeats are counted and the first and the last are kept. An event that
names only digits joins the incident of the one full UUID it fits, never one of several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from smfix.model import Evidence, Incident, VdiRef
from smfix.smlog.events import Failure, Quote, bounded
from smfix.smlog.processes import same_run

# The order in which kinds are told: what the storage manager said first, then why.
KINDS = (
    "coalesce-corrupted",
    "leaf-coalesce-corrupted",
    "footer-invalid",
    "backup-footer-invalid",
    "footer-mismatch",
    "header-invalid",
    "bat-invalid",
    "batmap-invalid",
    "scan-error",
    "parent-missing",
    "clock",
    "open-failed",
)
TimeOf = Callable[[Failure], datetime | None]
_RUNS = 64  # processes remembered per incident: enough to recognise the second half of a report


@dataclass(slots=True)
class Gathering:
    """One incident while its events come in."""

    vdi: str
    sr: str | None
    path: str | None
    host: str | None
    copy: bool
    kinds: dict[str, None] = field(default_factory=dict)
    candidates: dict[str, None] = field(default_factory=dict)
    first: Failure | None = None
    last: Failure | None = None
    count: int = 0
    quotes: tuple[Quote, ...] = ()
    final: tuple[Quote, ...] = ()
    runs: dict[tuple[str | None, int], Failure] = field(default_factory=dict)

    def add(self, event: Failure) -> None:
        """Count `event`, unless this run of its process has reported the VDI already."""
        self.kinds.update(dict.fromkeys(event.kinds))
        self.candidates.update(dict.fromkeys(event.candidates))
        self.sr = self.sr or event.sr
        self.path = self.path or event.path
        self.copy = self.copy or event.copy
        if self.first is None:
            self.first = event
        self.last = event
        self.quotes = bounded((*self.quotes, *event.evidence))
        if not self._is_same_report(event):
            self.count += 1
        if event.pid is not None:
            self.runs[event.host, event.pid] = event
            if len(self.runs) > _RUNS:
                del self.runs[next(iter(self.runs))]

    def _is_same_report(self, event: Failure) -> bool:
        if event.pid is None:
            return False
        before = self.runs.pop((event.host, event.pid), None)
        return before is not None and same_run(before.stamp, event.stamp)


def gather(events: Iterable[Failure]) -> list[Gathering]:
    """The incidents in `events` (in the order of the logs), in the order of their first event."""
    by_full: dict[str, Gathering] = {}
    by_digits: dict[tuple[str | None, str | None, str], Gathering] = {}
    found: list[Gathering] = []
    for event in events:
        if not event.vdi:
            continue
        if len(event.vdi) == 36:
            incident = by_full.get(event.vdi)
        else:
            incident = _fitting(by_full.values(), event) or by_digits.get((event.host, event.sr, event.vdi))
        if incident is None:
            incident = Gathering(event.vdi, event.sr, event.path, event.host, event.copy)
            found.append(incident)
            if len(event.vdi) == 36:
                by_full[event.vdi] = incident
            else:
                by_digits[event.host, event.sr, event.vdi] = incident
        incident.add(event)
    return found


def _fitting(incidents: Iterable[Gathering], event: Failure) -> Gathering | None:
    """The one incident of a full UUID that `event`'s digits fit; None where several do."""
    fitting = [
        incident
        for incident in incidents
        if incident.vdi.startswith(event.vdi)
        and incident.host == event.host
        and (event.sr is None or incident.sr in (None, event.sr))
    ]
    return fitting[0] if len(fitting) == 1 else None


def incident(gathered: Gathering, files: tuple[str, ...], time_of: TimeOf) -> Incident:
    """The finished incident. `files` are the names behind the quotes' indexes."""
    times = [
        moment
        for event in (gathered.first, gathered.last)
        if event is not None and (moment := time_of(event)) is not None
    ]
    return Incident(
        vdi=VdiRef(gathered.vdi),
        sr=gathered.sr,
        path=gathered.path,
        kinds=tuple(sorted(gathered.kinds, key=KINDS.index)),
        first_seen=times[0] if times else None,
        last_seen=times[-1] if times else None,
        count=gathered.count,
        evidence=tuple(Evidence(files[q.file], q.line, q.text) for q in gathered.quotes),
        host=gathered.host,
        candidates=tuple(gathered.candidates),
        copy=gathered.copy,
    )
