"""From events to incidents: one VDI in trouble, once, however often it was reported.

Pure. The FAILED record and the EXCEPTION of one run are one report; the next garbage collection
says the same again, so repeats are counted and the first and the last are kept. An event that
names only digits joins the incident of the one full UUID it fits, never one of several. A proof
resolves the reports before it; a later report reopens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

from smfix.smlog.correlate.failures import Failure, LogSource, Quote, bounded
from smfix.smlog.correlate.process_runs import same_run
from smfix.smlog.parse.disk_names import FILES, linstor_volume
from smfix.smlog.rules.resolutions import Proof, Renamed, Strength
from smfix.values import Evidence, Incident, State, VdiRef

# The order in which kinds are listed: the storage manager's first report, then the reason.
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
    "repair-failed",
    "open-failed",
    "tool-crashed",
)
# Kinds that name the complaining program, not the damage.
_UNSPECIFIC = frozenset({"coalesce-corrupted", "leaf-coalesce-corrupted"})
TimeOf = Callable[[Failure], datetime | None]
_RUNS = 64  # processes remembered per incident: enough to recognise the second half of a report
_MOST = 10_000  # incidents of one reading; a log that names more is no log
_NAMESAKES = 64  # incidents whose UUIDs start with the same eight digits
_NEAR = 200  # lines: a verdict without a pid this close to a report is part of it


@dataclass(slots=True)
class IncidentBuilder:
    """One incident while its events come in."""

    vdi: str
    sr: str | None
    path: str | None
    voice: LogSource
    copy: bool
    format: str
    kinds: set[str] = field(default_factory=set)
    candidates: dict[str, None] = field(default_factory=dict)
    first: Failure | None = None
    last: Failure | None = None
    called: int = -1  # place of the last report that names the VDI
    count: int = 0
    quotes: tuple[Quote, ...] = ()
    runs: dict[tuple[LogSource, int], Failure] = field(default_factory=dict)
    proof: Proof | None = None
    renamed: Renamed | None = None

    def add(self, event: Failure) -> None:
        """Count `event`, unless this run of its process has reported the VDI already."""
        if self.proof is not None and self.proof.place < event.place:
            self.proof = None
        self.kinds.update(event.kinds)
        self.candidates.update(dict.fromkeys(event.candidates))
        self.sr = self.sr or event.sr
        self.path = self.path or event.path
        self.copy = self.copy or event.copy
        if event.format != "vhd":
            self.format = event.format
        if not self._is_same_report(event):
            self.count += 1
        if self.first is None:
            self.first = event
        self.last = event
        if event.vdi:
            self.called = event.place
        self.quotes = bounded((*self.quotes, *event.evidence))
        if event.pid is not None:
            self.runs[event.voice, event.pid] = event
            if len(self.runs) > _RUNS:
                del self.runs[next(iter(self.runs))]

    def _is_same_report(self, event: Failure) -> bool:
        last = self.last
        if last is None:
            return False
        if event.pid is None or last.pid is None:
            return _is_near(last, event) and event.stamp == last.stamp
        before = self.runs.pop((event.voice, event.pid), None)
        return before is not None and same_run(before.stamp, event.stamp) and not event.fresh

    def rename(self, event: Renamed) -> bool:
        """Follow the image to its new name; return False if it is another image, or nothing is left to do for it."""
        is_other = self.vdi != event.old.vdi or (None not in (self.sr, event.old.sr) and self.sr != event.old.sr)
        is_elsewhere = self.path is not None and self.path.rpartition("/")[2] != event.old.path.rpartition("/")[2]
        if is_other or is_elsewhere or self.proof is not None or self.copy:
            return False
        self.vdi, self.path, self.renamed = event.new.vdi or self.vdi, event.new.path, event
        self.quotes = bounded((*self.quotes, *event.evidence))
        return True

    def settle(self, proof: Proof) -> None:
        """Take `proof` if it is the first, by its place, that covers everything this incident was reported for."""
        if self.last is None or proof.place <= self.last.place or not self._covered_by(proof):
            return
        if self.proof is None or proof.place < self.proof.place:
            self.proof = proof

    def _covered_by(self, proof: Proof) -> bool:
        if len(proof.vdi) < 36:
            # Digits prove something only of the disk they can mean on this SR and this host.
            if self.sr is not None and proof.sr != self.sr:
                return False
            if proof.voice != self.voice:
                return False
        elif None not in (self.sr, proof.sr) and self.sr != proof.sr:
            return False
        if proof.strength is Strength.CHECKED:
            return True
        if proof.strength is Strength.REMOVED and self.path is not None and FILES in self.path:
            return False  # its name is a namesake's: no file is a volume
        if proof.strength in {Strength.GONE, Strength.REMOVED}:
            return "parent-missing" not in self.kinds
        return bool(self.kinds - _UNSPECIFIC) and "bat-invalid" not in self.kinds


class Register:
    """All incidents so far. Events are taken in the order of the logs.

    `in_question` are the first eight digits of the disks that nothing has proved sound since their last report;
    with `asks_again`, of all that were reported.
    """

    def __init__(self, *, asks_again: bool = False) -> None:
        self.found: list[IncidentBuilder] = []
        self.left_out = 0  # reports beyond the bounds
        self.in_question: set[str] = set()
        self._asks_again = asks_again
        self._by_digits: dict[str, list[IncidentBuilder]] = {}
        self._by_path: dict[str, IncidentBuilder] = {}  # of images whose path names no VDI

    def take(self, event: Failure | Proof | Renamed) -> None:
        """File a report, settle what a proof covers, or follow an image to its new name."""
        if isinstance(event, Renamed):
            for gathered in list(self._by_digits.get((event.old.vdi or "")[:8], ())):
                if gathered.rename(event) and event.old.vdi != event.new.vdi:
                    self._by_digits.setdefault(gathered.vdi[:8], []).append(gathered)
                    self.in_question.add(gathered.vdi[:8])
            return
        if isinstance(event, Proof):
            namesakes = self._by_digits.get(event.vdi[:8], [])
            for gathered in namesakes:
                if gathered.vdi.startswith(event.vdi) or event.vdi.startswith(gathered.vdi):
                    gathered.settle(event)
            if not self._asks_again and all(one.proof is not None for one in namesakes):
                self.in_question.discard(event.vdi[:8])
            return
        one = self._of(event) or self._open(event)
        if one is None:
            self.left_out += 1
            return
        one.add(event)
        if one.vdi:
            self.in_question.add(one.vdi[:8])
        if event.path and linstor_volume(event.path):
            self._by_path.setdefault(event.path, one)

    def _open(self, event: Failure) -> IncidentBuilder | None:
        if not event.vdi and not event.path:
            return None
        namesakes = self._by_digits.setdefault(event.vdi[:8], [])
        if len(self.found) >= _MOST or (event.vdi and len(namesakes) >= _NAMESAKES):
            return None
        gathered = IncidentBuilder(event.vdi, event.sr, event.path, event.voice, event.copy, event.format)
        self.found.append(gathered)
        namesakes.append(gathered)
        return gathered

    def _of(self, event: Failure) -> IncidentBuilder | None:
        """Return the incident that `event` is another report of."""
        known = self._by_path.get(event.path or "")
        if known is not None and (not known.vdi or not event.vdi or known.vdi == event.vdi):
            if event.vdi:
                self._name(known, event.vdi)
            return known
        if not event.vdi:
            return None
        fitting = [one for one in self._by_digits.get(event.vdi[:8], ()) if _is_one(one, event)]
        if len(fitting) > 1:  # more than one is exact if a volume matched a known name
            fitting = [one for one in fitting if one.sr == event.sr and one.vdi == event.vdi][:1]
        if len(fitting) != 1:
            return None
        if len(event.vdi) > len(fitting[0].vdi):
            self._name(fitting[0], event.vdi)
        return fitting[0]

    def _name(self, gathered: IncidentBuilder, vdi: str) -> None:
        """Name the incident whose digits (or bare path) have found their name."""
        if vdi[:8] != gathered.vdi[:8]:
            self._by_digits.setdefault(vdi[:8], []).append(gathered)
        gathered.vdi = vdi


def _is_near(last: Failure, event: Failure) -> bool:
    """Compare lines of one file: places leave room between the parts of a log that are read side by side."""
    one, other = last.evidence[-1:], event.evidence[:1]
    return bool(one and other) and one[0].file == other[0].file and abs(other[0].line - one[0].line) < _NEAR


def _is_one(one: IncidentBuilder, event: Failure) -> bool:
    """Return True if `event` can be about the disk of `one`, and about no other that is known."""
    if one.copy != event.copy or (None not in (one.sr, event.sr) and one.sr != event.sr):
        return False
    if one.vdi == event.vdi:
        return len(event.vdi) == 36 or one.voice == event.voice
    if event.candidates or one.voice != event.voice:
        return False
    return one.vdi.startswith(event.vdi) or event.vdi.startswith(one.vdi)


def incident(gathered: IncidentBuilder, files: tuple[str, ...], time_of: TimeOf) -> Incident:
    """Build the finished incident. `files` are the names that the quotes' indexes refer to."""
    times = [
        moment
        for event in (gathered.first, gathered.last)
        if event is not None and (moment := time_of(event)) is not None
    ]
    proof = gathered.proof.evidence if gathered.proof else ()
    return Incident(
        vdi=VdiRef(gathered.vdi),
        sr=gathered.sr,
        path=gathered.path,
        kinds=tuple(sorted(gathered.kinds, key=KINDS.index)),
        first_seen=times[0] if times else None,
        last_seen=times[-1] if times else None,
        count=gathered.count,
        evidence=tuple(Evidence(files[q.file], q.line, q.text) for q in bounded((*gathered.quotes, *proof))),
        state=State.RESOLVED if proof else State.OPEN,
        host=gathered.voice[0],
        candidates=tuple(gathered.candidates) if len(gathered.vdi) < 36 else (),
        copy=gathered.copy,
        format=gathered.format,
        proof=tuple(Evidence(files[q.file], q.line, q.text) for q in proof),
    )


def incident_id(host: str, sr: str, digits: str, whole: str) -> str:
    """Return the stable name of an incident; `whole` if others share all the rest."""
    name: str = _sha256()(f"{host}\0{sr}\0{digits}\0{whole}".encode()).hexdigest()
    return name[:12]


@cache
def _sha256() -> Callable[[bytes], Any]:
    """Return SHA-256 as the standard library's random imports it: hashlib loads all of OpenSSL, which takes longer."""
    # Since Python 3.12, before that, and in another Python.
    lean = next(filter(find_spec, ("_sha2", "_sha256", "hashlib")))
    return cast("Callable[[bytes], Any]", import_module(lean).sha256)
