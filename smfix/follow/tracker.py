"""The incidents of a log that grows: each report and each proof finds its case. Pure.

Which report belongs to which incident is :mod:`smfix.smlog.correlate.incidents`' to say, live as in a log that
is read whole; a register is rebuilt from what the ledger remembers, so a restart changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from smfix.follow.incident_state import IncidentState, Stage, begun, proved, reported
from smfix.follow.state import MOST_CASES, FollowerState, TrackedIncident
from smfix.smlog.correlate.failures import Failure, bounded
from smfix.smlog.correlate.incidents import KINDS, IncidentBuilder, Register, incident_id
from smfix.smlog.rules.resolutions import Proof, Renamed
from smfix.values import Evidence, Incident, State, VdiRef

TimeOf = Callable[[Failure], datetime | None]


class Tracker:
    """The cases of a ledger, and where the next event goes."""

    def __init__(self, ledger: FollowerState) -> None:
        self.left_out = 0
        self._ledger = ledger
        self._register = Register()
        self._of: dict[int, str] = {}  # id() of a gathering -> id of its case
        for case in ledger.cases.values():
            self._restore(case)

    def wanted(self) -> set[str]:
        """The first eight digits of the VDIs whose proofs would change something."""
        return {
            case.vdi[:8] for case in self._ledger.cases.values() if case.vdi and case.life.stage is not Stage.CONFIRMED
        }

    def take(
        self, event: Failure | Proof | Renamed, now: datetime, time_of: TimeOf
    ) -> list[tuple[TrackedIncident, IncidentState | None]]:
        """File `event`; the cases it changed, their lives moved on, with the life each had before."""
        if isinstance(event, Failure) and len(self._ledger.cases) >= MOST_CASES:
            self._make_room()
        if isinstance(event, Failure) and len(self._ledger.cases) >= MOST_CASES:
            self.left_out += 1
            return []
        self._register.take(event)
        if isinstance(event, Renamed):
            return [self._rename(one, now) for one in self._register.found if one.renamed is event]
        if isinstance(event, Proof):
            return [self._settle(one, event, now) for one in self._register.found if one.proof is event]
        gathered = next((one for one in reversed(self._register.found) if one.last is event), None)
        if gathered is None:
            self.left_out += 1
            return []
        return [self._file(gathered, event, now, time_of(event) or now)]

    def _settle(self, gathered: IncidentBuilder, proof: Proof, now: datetime) -> tuple[TrackedIncident, IncidentState]:
        case = self._ledger.cases[self._of[id(gathered)]]
        before = case.life
        case.proof = proof
        case.life = proved(before, now)
        return case, before

    def _rename(self, gathered: IncidentBuilder, now: datetime) -> tuple[TrackedIncident, IncidentState]:
        """The storage manager gave the image another name: it is looked for by that one."""
        case = self._ledger.cases[self._of[id(gathered)]]
        before = case.life
        case.vdi, case.path, case.quotes = gathered.vdi, gathered.path, gathered.quotes
        case.life = reported(before, now)
        return case, before

    def _file(
        self, gathered: IncidentBuilder, event: Failure, now: datetime, moment: datetime
    ) -> tuple[TrackedIncident, IncidentState | None]:
        bare = event._replace(evidence=())
        gathered.first = gathered.first and gathered.first._replace(evidence=())
        known, before = self._of.get(id(gathered)), None
        if known is None:
            name = self._name(gathered)
            case = TrackedIncident(
                name, gathered.vdi, gathered.sr, gathered.path, begun(now), bare, bare,
                (), (), 0, (), gathered.copy, moment, moment,
            )  # fmt: skip
            self._ledger.cases[name] = case
            self._of[id(gathered)] = name
        else:
            case = self._ledger.cases[known]
            before = case.life
            if gathered.count > case.count or case.proof is not None:
                case.life = reported(case.life, now)
        case.vdi, case.sr, case.path, case.copy = gathered.vdi, gathered.sr, gathered.path, gathered.copy
        case.last, case.last_seen = bare, moment
        case.kinds = tuple(sorted(gathered.kinds, key=KINDS.index))
        case.candidates = tuple(gathered.candidates)
        case.count, case.quotes, case.proof = gathered.count, gathered.quotes, gathered.proof
        return case, before

    def _name(self, gathered: IncidentBuilder) -> str:
        """The incident's stable id, as `from-log` gives it: of host, SR, and the VDI's first digits."""
        key = (gathered.voice[0] or "", gathered.sr or "", gathered.vdi[:8])
        name = incident_id(*key, "")
        if name in self._ledger.cases:
            name = incident_id(*key, gathered.vdi)
        count = 0
        while name in self._ledger.cases:  # one disk under two names: told apart, at least
            count += 1
            name = incident_id(*key, f"{gathered.vdi}#{count}")
        return name

    def _restore(self, case: TrackedIncident) -> None:
        """Have the register know the case as it did when the ledger was written."""
        first = case.first._replace(vdi=case.vdi, sr=case.sr, path=case.path, kinds=case.kinds)
        self._register.take(first)
        gathered = next((one for one in reversed(self._register.found) if one.last is first), None)
        if gathered is None or id(gathered) in self._of:
            return
        gathered.add(case.last)
        gathered.vdi, gathered.sr, gathered.path = case.vdi, case.sr, case.path
        gathered.count, gathered.quotes, gathered.proof = case.count, case.quotes, case.proof
        gathered.candidates = dict.fromkeys(case.candidates)
        self._of[id(gathered)] = case.id

    def _make_room(self) -> None:
        """Forget a tenth of the cases: the confirmed, the longest confirmed first."""
        over = [case for case in self._ledger.cases.values() if case.life.stage is Stage.CONFIRMED]
        over.sort(key=lambda case: case.life.since)
        if not over:
            return
        for case in over[: MOST_CASES // 10]:
            del self._ledger.cases[case.id]
        self._register, self._of = Register(), {}
        for case in self._ledger.cases.values():
            self._restore(case)


def incident(case: TrackedIncident, files: list[str]) -> Incident:
    """The case as the pipeline knows it. `files` are the names behind the quotes' indexes."""
    quotes = bounded((*case.quotes, *case.proof.evidence)) if case.proof else case.quotes
    return Incident(
        vdi=VdiRef(case.vdi),
        sr=case.sr,
        path=case.path,
        kinds=case.kinds,
        first_seen=case.first_seen,
        last_seen=case.last_seen,
        count=case.count,
        evidence=tuple(Evidence(files[quote.file], quote.line, quote.text) for quote in quotes),
        state=State.RESOLVED if case.proof else State.OPEN,
        host=case.first.voice[0],
        candidates=case.candidates if len(case.vdi) < 36 else (),
        copy=case.copy,
    )
