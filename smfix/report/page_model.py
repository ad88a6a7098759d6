"""Make the values of a page, which a template only has to place: cards, pictures, the timeline. Pure.

Theory. The four commands that can make a page know different things of an image. Here they become one kind
of :class:`Card`, in the order in which they are read at three in the morning: which VMs, what is wrong, what
was done, what was not and why, what to type; then the evidence. Bounds are set here too: a hostile log may
name a million disks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from smfix.formats.diagram import Diagram
from smfix.report import redact
from smfix.report.diagram import Bar, bars, strip
from smfix.report.layout import counted, span
from smfix.report.next_steps import command_line
from smfix.report.text import describe_fixes, edit_words
from smfix.values import (
    CheckedImage,
    Evidence,
    Finding,
    LogReading,
    Names,
    Outcome,
    ScannedImage,
    Severity,
    State,
    Status,
    TreatedImage,
    TreatedIncident,
    Verdict,
)

CARDS = 300
"""Disks that get a card of their own; the others are in the table."""
LINES = 40
"""Log lines quoted for one disk."""
LONGEST = 4000
"""Characters of a quoted line that are printed."""
CELLS = 160
"""Cells in which a picture is drawn."""
PIECES = 24
"""Pieces of a picture that are listed one by one."""
EDITS = 12
"""Edits of a plan that are listed one by one."""
NARROWEST = 4
"""Thousandths of the timeline that a mark has at least."""

GOOD, WAITING, BAD, CALM = "good", "waiting", "bad", "calm"
_TONES = {
    Status.REPAIRED: GOOD,
    Status.VALID: GOOD,
    Status.PARTLY_REPAIRED: WAITING,
    Status.WOULD_REPAIR: WAITING,
    Status.REFUSED: WAITING,
    Status.NOT_FOUND: WAITING,
    Status.AMBIGUOUS: WAITING,
    Status.ROLLED_BACK: BAD,
    Status.FAILED: BAD,
}
_NAMELESS = Names()
_VERDICTS = {Verdict.VALID: GOOD, Verdict.IN_USE: CALM}


@dataclass(frozen=True, slots=True)
class Environment:
    """Where and how the page was made. `made` is an aware datetime; `vhd_util` None: not installed."""

    version: str
    python: str
    system: str
    host: str
    user: str
    command: str
    made: datetime
    vhd_util: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a page: cells are text; `more` rows were left out. `id` is a word."""

    id: str
    heading: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    more: int = 0


# --------------------------------------------------------------------------- how a disk looks


@dataclass(frozen=True, slots=True)
class FooterBytes:
    """The bytes in a footer's place: `raw` at byte `offset`; `like`: the sound footer that belongs there."""

    title: str
    offset: int
    raw: bytes
    is_metadata: bool
    like: bytes | None

    def dump(self, *, show_all: bool) -> redact.Dump:
        """Dump the bytes for a report; `show_all`: even if they may be guest data."""
        return redact.dump(self.raw, self.offset, self.like, is_metadata=self.is_metadata, show_all=show_all)


@dataclass(frozen=True, slots=True)
class Side:
    """One look at the file: `title` says when."""

    title: str
    picture: Diagram
    footers: tuple[FooterBytes, ...]

    @property
    def bars(self) -> tuple[Bar, ...]:
        """The bars to draw, in :data:`CELLS` cells."""
        return bars(strip(self.picture, CELLS))

    @property
    def home_cell(self) -> int | None:
        """The cell below which "a footer belongs here" points; None: it is there."""
        if self.picture.home is None:
            return None
        cells = [bar for bar in self.bars if bar.part.name == "DAMAGED"]
        if self.picture.home < self.picture.size and cells:
            return cells[-1].start
        return sum(bar.cells for bar in self.bars) - 1


@dataclass(frozen=True, slots=True)
class Relative:
    """One image of the chain. `depth` counts from its top; `words` say what is known of it."""

    name: str
    depth: int
    words: str
    is_self: bool = False
    is_damaged: bool = False


@dataclass(frozen=True, slots=True)
class Portrait:
    """How a disk looks: before and after (or once), and its chain. `note` says what could not be looked at."""

    sides: tuple[Side, ...] = ()
    chain: tuple[Relative, ...] = ()
    note: str | None = None


# --------------------------------------------------------------------------- cards


@dataclass(frozen=True, slots=True)
class Card:
    """Everything about one disk. `rows` are (label, value); `tone`: good, waiting, bad or calm.

    `wrong`: its findings in one line. `mended`: the repairs; `plan`: their edits in words, written if `is_written`.
    """

    title: str
    path: str | None
    names: Names = _NAMELESS
    rows: tuple[tuple[str, str], ...] = ()
    status: str = ""
    tone: str = CALM
    wrong: str = ""
    findings: tuple[Finding, ...] = ()
    mended: tuple[str, ...] = ()
    plan: tuple[str, ...] = ()
    is_written: bool = False
    result: str | None = None
    lost: str | None = None
    remaining: tuple[Finding, ...] = ()
    journal: str | None = None
    undo: str | None = None
    next: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    more_evidence: int = 0
    first: datetime | None = None
    last: datetime | None = None

    @property
    def is_calm(self) -> bool:
        """True if there is nothing to do for it."""
        return self.tone in (GOOD, CALM)


def of_incident(treated: TreatedIncident) -> Card:
    """Make the card of an incident of `from-log`."""
    reported = treated.incident
    rows = _sr(treated.sr, treated.names) or [("SR", "the log does not say")]
    rows += [("host", reported.host)] if reported.host else []
    rows += [("seen", f"{span(reported.first_seen, reported.last_seen)} ({counted(reported.count, 'report')})")]
    rows += [("kinds", ", ".join(reported.kinds))]
    if treated.outcome is not None and State.RESOLVED is reported.state:
        rows.append(("note", "the log calls it resolved; its image is damaged all the same"))
    quoted = reported.evidence[:LINES]
    card = Card(
        treated.vdi,
        treated.path,
        treated.names,
        tuple(rows),
        evidence=tuple(Evidence(line.file, line.line, _cut(line.text)) for line in quoted),
        more_evidence=len(reported.evidence) - len(quoted),
        first=reported.first_seen,
        last=reported.last_seen,
    )
    if treated.outcome is None:
        return replace(card, status="resolved", wrong="nothing any more: a later line of the log shows that it is over")
    card = _with_outcome(card, treated.outcome)
    return card if card.wrong else replace(card, wrong=f"the log says: {', '.join(reported.kinds)}")


def _sr(uuid: str | None, names: Names) -> list[tuple[str, str]]:
    """The SR as a row: its UUID and what the pool calls it, as far as they are known."""
    words = [uuid] * (uuid is not None) + [names.sr if uuid is None else f"({names.sr})"] * (names.sr is not None)
    return [("SR", " ".join(word for word in words if word))] if words else []


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ({len(line) - LONGEST:,} more characters)"


def of_image(treated: TreatedImage) -> Card:
    """Make the card of a TARGET of `repair`."""
    rows = tuple(_sr(treated.sr, treated.names))
    return _with_outcome(Card(_name(treated.path), treated.path, treated.names, rows), treated.outcome)


def of_check(image: CheckedImage) -> Card:
    """Make the card of a TARGET of `check`."""
    rows = _sr(None, image.names)
    rows += [("size", counted(image.size, "byte"))] if image.size is not None else []
    rows += [("data ends at", f"byte {image.end_of_data:,}")] if image.end_of_data is not None else []
    rows += [("note", image.note)] if image.note is not None else []
    return Card(
        _name(image.path),
        image.path,
        image.names,
        tuple(rows),
        status=image.verdict.value,
        tone=_VERDICTS.get(image.verdict, BAD),
        wrong=_wrong(image.findings),
        findings=image.findings,
    )


def of_scan(image: ScannedImage) -> Card:
    """Make the card of an image of `scan`."""
    card = of_check(image.checked)
    rows = _sr(image.sr, image.names)
    rows += [("guest's disk", counted(image.virtual_size, "byte"))] if image.virtual_size is not None else []
    rows += [("held open", image.in_use.value)]
    return replace(card, names=image.names, rows=(*card.rows, *rows))


def _with_outcome(card: Card, value: Outcome) -> Card:
    edits = value.plan.edits if value.plan is not None else ()
    is_written = value.status in (Status.REPAIRED, Status.PARTLY_REPAIRED)
    return replace(
        card,
        status=value.status.value + ("" if value.reason is None else f" ({value.reason.value})"),
        tone=_TONES[value.status],
        wrong=_wrong(value.findings),
        findings=value.findings,
        plan=tuple(edit_words(edit) for edit in edits[:EDITS]) + _more(len(edits) - EDITS),
        mended=tuple(describe_fixes(value.plan.fixes, is_done=is_written)) if value.plan is not None and edits else (),
        is_written=is_written,
        result=value.message,
        lost=f"{counted(value.lost_sectors, 'guest sector')} of 512 bytes" if value.lost_sectors else None,
        remaining=() if value.remaining == value.findings else value.remaining,
        journal=value.journal,
        undo=None if value.undo is None else command_line(value.undo),
        next=tuple(map(command_line, value.next)),
    )


def _more(edits: int) -> tuple[str, ...]:
    return (f"and {counted(edits, 'more edit')}",) if edits > 0 else ()


def _wrong(findings: Iterable[Finding]) -> str:
    """Return the titles of the findings that are not infos, each once."""
    titles = (f"{one.title} ({one.code})" for one in findings if one.severity is not Severity.INFO)
    return "; ".join(dict.fromkeys(titles))


def _name(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".vhd") or path


# --------------------------------------------------------------------------- when it happened


@dataclass(frozen=True, slots=True)
class TimelineMark:
    """A disk's reports on the scale of the log: `start` and `width` in thousandths of its span.

    `number` is the card's among those that are shown, from 1; `when` says the times.
    """

    card: Card
    number: int
    when: str
    start: int
    width: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """The log's span, and the marks on it, the earliest first."""

    span: str
    marks: tuple[TimelineMark, ...]


def timeline(reading: LogReading, cards: Sequence[Card]) -> Timeline | None:
    """Place each disk's reports on the span of the log; None if the log has no times."""
    times = [time for card in cards for time in (card.first, card.last) if time is not None]
    times += [time for time in (reading.first, reading.last) if time is not None]
    if not times:
        return None
    first, last = min(times), max(times)
    length = max((last - first).total_seconds(), 1e-6)
    marks = []
    for number, card in enumerate(cards, 1):
        begun, ended = card.first or card.last, card.last or card.first
        if begun is None or ended is None:
            continue
        start = int(1000 * (begun - first).total_seconds() / length)
        end = int(1000 * (ended - first).total_seconds() / length)
        # Wide enough to be seen, and inside at both ends; a clock that jumped back may swap the two.
        left, right = min(start, end), max(start, end)
        width = max(right - left, NARROWEST)
        marks.append(TimelineMark(card, number, span(_second(begun), _second(ended)), min(left, 1000 - width), width))
    return Timeline(span(_second(first), _second(last)), tuple(sorted(marks, key=lambda mark: mark.start)))


def _second(time: datetime) -> datetime:
    return time.replace(microsecond=0)
