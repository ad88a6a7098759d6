"""Assign each report and each proof of a growing log to its incident. Pure.

:mod:`smfix.smlog.correlate.incidents` decides which report belongs to which incident, for a growing log as for a whole
one. Its register is rebuilt from the follower's state, so a restart changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from smfix.follow.incident_state import IncidentState, Stage, begin, note_proof, note_report
from smfix.follow.state import MOST_INCIDENTS, DiskObservation, FollowerState, TrackedIncident
from smfix.smlog.correlate.failures import Failure, bounded
from smfix.smlog.correlate.incidents import KINDS, IncidentBuilder, Register, incident_id
from smfix.smlog.rules.resolutions import Proof, Renamed
from smfix.values import Evidence, Incident, State, TreatedIncident, VdiRef

TimeOf = Callable[[Failure], datetime | None]


class Tracker:
    """Holds the incidents of `state`, and files each new event."""

    def __init__(self, state: FollowerState) -> None:
        self.left_out = 0
        self._state = state
        self._register = Register()
        self._of: dict[int, str] = {}  # id() of a builder -> id of its incident
        for tracked in state.incidents.values():
            self._restore(tracked)

    def wanted(self) -> set[str]:
        """Return the first eight digits of the VDIs of which a proof would end an incident."""
        kept = self._state.incidents.values()
        return {one.vdi[:8] for one in kept if one.vdi and one.progress.stage is not Stage.CONFIRMED}

    def take(
        self, event: Failure | Proof | Renamed, now: datetime, time_of: TimeOf
    ) -> list[tuple[TrackedIncident, IncidentState | None]]:
        """File `event`. Return the incidents that it changed, each with its progress before."""
        if isinstance(event, Failure) and len(self._state.incidents) >= MOST_INCIDENTS:
            self._make_room()
        if isinstance(event, Failure) and len(self._state.incidents) >= MOST_INCIDENTS:
            self.left_out += 1
            return []
        self._register.take(event)
        if isinstance(event, Renamed):
            return [self._rename(one, now) for one in self._register.found if one.renamed is event]
        if isinstance(event, Proof):
            return [self._end(one, event, now) for one in self._register.found if one.proof is event]
        builder = next((one for one in reversed(self._register.found) if one.last is event), None)
        if builder is None:
            self.left_out += 1
            return []
        return [self._file(builder, event, now, time_of(event) or now)]

    def _end(self, builder: IncidentBuilder, proof: Proof, now: datetime) -> tuple[TrackedIncident, IncidentState]:
        tracked = self._state.incidents[self._of[id(builder)]]
        before = tracked.progress
        tracked.proof = proof
        tracked.progress = note_proof(before, now)
        return tracked, before

    def _rename(self, builder: IncidentBuilder, now: datetime) -> tuple[TrackedIncident, IncidentState]:
        """Look for the image by the new name that the storage manager gave it."""
        tracked = self._state.incidents[self._of[id(builder)]]
        before = tracked.progress
        tracked.vdi, tracked.path, tracked.quotes = builder.vdi, builder.path, builder.quotes
        tracked.progress = note_report(before, now)
        return tracked, before

    def _file(
        self, builder: IncidentBuilder, event: Failure, now: datetime, moment: datetime
    ) -> tuple[TrackedIncident, IncidentState | None]:
        bare = event._replace(evidence=())
        builder.first = builder.first and builder.first._replace(evidence=())
        name, before = self._of.get(id(builder)), None
        if name is None:
            name = self._name(builder)
            tracked = TrackedIncident(
                name, builder.vdi, builder.sr, builder.path, begin(now), bare, bare,
                (), (), 0, (), builder.copy, moment, moment,
            )  # fmt: skip
            self._state.incidents[name] = tracked
            self._of[id(builder)] = name
        else:
            tracked = self._state.incidents[name]
            before = tracked.progress
            if builder.count > tracked.count or tracked.proof is not None:
                tracked.progress = note_report(tracked.progress, now)
        tracked.vdi, tracked.sr, tracked.path, tracked.copy = builder.vdi, builder.sr, builder.path, builder.copy
        tracked.last, tracked.last_seen = bare, moment
        tracked.kinds = tuple(sorted(builder.kinds, key=KINDS.index))
        tracked.candidates = tuple(builder.candidates)
        tracked.count, tracked.quotes, tracked.proof = builder.count, builder.quotes, builder.proof
        return tracked, before

    def _name(self, builder: IncidentBuilder) -> str:
        """Return the incident's stable id, as `from-log` makes it: of host, SR, and the VDI's first digits."""
        key = (builder.voice[0] or "", builder.sr or "", builder.vdi[:8])
        name = incident_id(*key, "")
        if name in self._state.incidents:
            name = incident_id(*key, builder.vdi)
        count = 0
        while name in self._state.incidents:  # one disk under two names: two ids
            count += 1
            name = incident_id(*key, f"{builder.vdi}#{count}")
        return name

    def _restore(self, tracked: TrackedIncident) -> None:
        """Enter the incident into the register, as it was when the state was written."""
        first = tracked.first._replace(vdi=tracked.vdi, sr=tracked.sr, path=tracked.path, kinds=tracked.kinds)
        self._register.take(first)
        builder = next((one for one in reversed(self._register.found) if one.last is first), None)
        if builder is None or id(builder) in self._of:
            return
        builder.add(tracked.last)
        builder.vdi, builder.sr, builder.path = tracked.vdi, tracked.sr, tracked.path
        builder.count, builder.quotes, builder.proof = tracked.count, tracked.quotes, tracked.proof
        builder.candidates = dict.fromkeys(tracked.candidates)
        self._of[id(builder)] = tracked.id

    def _make_room(self) -> None:
        """Drop a tenth of the incidents: confirmed ones, those that were confirmed first."""
        confirmed = [tracked for tracked in self._state.incidents.values() if tracked.progress.stage is Stage.CONFIRMED]
        confirmed.sort(key=lambda tracked: tracked.progress.since)
        if not confirmed:
            return
        for tracked in confirmed[: MOST_INCIDENTS // 10]:
            del self._state.incidents[tracked.id]
        self._register, self._of = Register(), {}
        for tracked in self._state.incidents.values():
            self._restore(tracked)


def incident_of(tracked: TrackedIncident, files: list[str]) -> Incident:
    """Return the incident as the use cases take it. `files` are the names to which the quotes' numbers refer."""
    quotes = bounded((*tracked.quotes, *tracked.proof.evidence)) if tracked.proof else tracked.quotes
    return Incident(
        vdi=VdiRef(tracked.vdi),
        sr=tracked.sr,
        path=tracked.path,
        kinds=tracked.kinds,
        first_seen=tracked.first_seen,
        last_seen=tracked.last_seen,
        count=tracked.count,
        evidence=tuple(Evidence(files[quote.file], quote.line, quote.text) for quote in quotes),
        state=State.RESOLVED if tracked.proof else State.OPEN,
        host=tracked.first.voice[0],
        candidates=tracked.candidates if len(tracked.vdi) < 36 else (),
        copy=tracked.copy,
    )


def treated_as(name: str, incident: Incident, disk: DiskObservation | None) -> TreatedIncident:
    """Return an incident with the last look at its disk, as reports take it; `disk` is None before the first one."""
    if disk is None:
        disk = DiskObservation(incident.vdi.text, incident.sr, incident.path, incident.state)
    return TreatedIncident(name, incident, disk.vdi, disk.sr, disk.path, disk.state, disk.outcome, disk.names)
