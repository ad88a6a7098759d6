"""The values that travel through smfix. Pure: nothing here opens, sleeps or prints.

Units: offsets, lengths and sizes are **bytes**; times are aware datetimes; UUIDs are lower-case
text with dashes. The names are the field's own (see ARCHITECTURE.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, IntFlag
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

SECTOR = 512
T = TypeVar("T")


def uuid_text(raw: bytes) -> str:
    """16 bytes as a lower-case UUID with dashes."""
    digits = raw.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


# --------------------------------------------------------------------------- bytes


class Extent(NamedTuple):
    """A run of bytes: ``offset`` from the start, ``length``; both in bytes."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """First byte behind the run."""
        return self.offset + self.length

    def overlaps(self, other: Extent) -> bool:
        """True when at least one byte lies in both."""
        return self.offset < other.end and other.offset < self.end


class ByteView(Protocol):
    """Random-access bytes: a file, a device, a buffer, or an overlay over one of them."""

    @property
    def size(self) -> int:
        """Length in bytes (a device: its capacity)."""

    @property
    def growable(self) -> bool:
        """True for a file (the footer sits at its end, wherever that is); False for a device."""

    def read(self, extent: Extent) -> bytes:
        """The bytes of `extent` that exist: shorter than asked only where the view ends.

        Raises :class:`smfix.errors.Unreadable` when the storage fails.
        """


@dataclass(frozen=True, slots=True)
class Sound(Generic[T]):
    """A structure whose cookie and checksum are right: what somebody meant to write."""

    value: T
    where: Extent


class Damaged(NamedTuple):
    """A structure that is not sound: its raw bytes and **every** reason, in `vhd-util`'s words."""

    raw: bytes
    reasons: tuple[str, ...]
    where: Extent


# --------------------------------------------------------------------------- findings


class Severity(Enum):
    """`error`: plain ``vhd-util check`` fails on it, or guest data is known lost or misplaced."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Disposition(Enum):
    """Who may say yes. SAFE: proved; CONFIRM: the operator, by code; REPORT: there is no repair."""

    SAFE = "SAFE"
    CONFIRM = "CONFIRM"
    REPORT = "REPORT"


class Verdict(Enum):
    """What `check` says of one image."""

    VALID = "valid"
    INVALID = "invalid"
    IN_USE = "in-use"
    NOT_A_VHD = "not-a-vhd"
    UNREADABLE = "unreadable"


_NO_FACTS: Mapping[str, Any] = {}


class Finding(NamedTuple):
    """One row of the problem table, met in one image: where, and with which facts."""

    code: str
    title: str
    message: str
    severity: Severity
    disposition: Disposition
    lossy: bool = False
    facts: Mapping[str, Any] = _NO_FACTS
    may_remain: bool = False

    @property
    def is_damage(self) -> bool:
        """An error of this image that must not remain when a plan is applied."""
        return self.severity is Severity.ERROR and not self.may_remain


class Diagnosis(NamedTuple):
    """All findings of one image, in the order in which `vhd-util check` would meet them."""

    verdict: Verdict
    findings: tuple[Finding, ...]


class InUse(Enum):
    """How a disk is held open, by anybody this host can see. UNKNOWN: this caller cannot see."""

    NONE = "none"
    READ_ONLY = "read-only"
    READ_WRITE = "read-write"
    UNKNOWN = "unknown"


# --------------------------------------------------------------------------- repairs


class Write(NamedTuple):
    """Put `data` at `offset` (bytes). May start at, never behind, the end of a growable view."""

    offset: int
    data: bytes

    @property
    def extent(self) -> Extent:
        """The bytes it covers."""
        return Extent(self.offset, len(self.data))


class Resize(NamedTuple):
    """Grow the file to `size` bytes; what is new reads as NUL. No plan ever shrinks an image."""

    size: int


Edit = Write | Resize


class Reason(Enum):
    """Why an image was refused (contract, OUTCOME.reason)."""

    IN_USE = "in-use"
    LOCKED = "locked"
    NEEDS_CONFIRM = "needs-confirm"
    NO_FIX = "no-fix"
    IMAGE_COPY = "image-copy"
    NOT_A_VHD = "not-a-vhd"
    UNSAFE_PATH = "unsafe-path"
    SM_PENDING = "sm-pending"
    SHARED_SR_UNKNOWN = "shared-sr-unknown"
    STALE = "stale"
    RECURRED = "recurred"
    POLICY = "policy"


class StepKind(Enum):
    """A command to type next; :mod:`smfix.report.next_steps` has its words."""

    REPAIR = "repair"
    CHECK = "check"
    UNDO = "undo"
    EXPLAIN = "explain"
    READ_LOGS = "read-logs"
    PRUNE = "prune"
    SCAN_SR = "scan-sr"
    FIND_SR = "find-sr"
    FIND_VDI = "find-vdi"
    FIND_VDI_BY_DIGITS = "find-vdi-by-digits"
    SHOW_SM_CONFIG = "show-sm-config"
    SHOW_VIRTUAL_SIZE = "show-virtual-size"
    END_PAUSE = "end-pause"
    SET_ASIDE = "set-aside"
    FIND_LINKS = "find-links"
    TEXT = "text"


class NextStep(NamedTuple):
    """A command to type next: `args` are its operands, `options` the words after them.

    The only argument of a TEXT is the command line itself, as an earlier version kept it.
    """

    kind: StepKind
    args: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Refusal(NamedTuple):
    """A decision not to act: why, in one line, and what to type next."""

    reason: Reason
    message: str
    next: tuple[NextStep, ...] = ()


class Fingerprint(NamedTuple):
    """Pins the bytes a plan was made from: the size, and a digest of every extent that was read."""

    size: int
    digests: tuple[tuple[Extent, bytes], ...]


class Placed(NamedTuple):
    """Bytes of the file (`place`), and the bytes of the guest's disk that are read from there (`guest`)."""

    place: Extent
    guest: Extent


class RepairPlan(NamedTuple):
    """What will be done, what will not and why, and what is left.

    `edits` are in order and never shrink. `fixes` are the findings they clear, `remaining` what a
    diagnosis of the result still says. `lost` are guest extents (bytes of the virtual disk) whose
    data is gone. `refusal` is set when nothing may be written; then `edits` is what consent would
    write, or empty, and `needs` are the codes still to be consented to. `reachable` is what a guest reads after
    the edits and not before: an undo takes it away again. `uuids` are those of the sound footers, before and after.
    """

    edits: tuple[Edit, ...]
    fixes: tuple[Finding, ...]
    remaining: tuple[Finding, ...]
    lost: tuple[Extent, ...]
    refusal: Refusal | None
    fingerprint: Fingerprint
    needs: tuple[str, ...] = ()
    reachable: tuple[Placed, ...] = ()
    uuids: frozenset[str] = frozenset()

    @property
    def lost_sectors(self) -> int:
        """Guest sectors (512 bytes each) whose data is gone."""
        return sum(extent.length for extent in self.lost) // SECTOR


class Status(Enum):
    """How it ended for one image (contract, OUTCOME.status)."""

    REPAIRED = "repaired"
    PARTLY_REPAIRED = "partly-repaired"
    WOULD_REPAIR = "would-repair"
    VALID = "valid"
    REFUSED = "refused"
    NOT_FOUND = "not-found"
    AMBIGUOUS = "ambiguous"
    ROLLED_BACK = "rolled-back"
    FAILED = "failed"


class Recovered(NamedTuple):
    """The decision of recovery on the journal of an interrupted repair or undo; `message` says it in words.

    `state` is the journal's state now. `wrote`: bytes were put back into the image.
    """

    journal: str
    state: str
    wrote: bool
    message: str


class Outcome(NamedTuple):
    """What became of one image. `next` are commands to type; `undo` is a complete command.

    `recovered` are the interrupted repairs that were met first, the newest first.
    """

    status: Status
    message: str
    reason: Reason | None = None
    findings: tuple[Finding, ...] = ()
    plan: RepairPlan | None = None
    remaining: tuple[Finding, ...] = ()
    lost_sectors: int = 0
    journal: str | None = None
    undo: NextStep | None = None
    next: tuple[NextStep, ...] = ()
    recovered: tuple[Recovered, ...] = ()

    @property
    def settled(self) -> bool:
        """Nothing is left to do for this image."""
        return self.status in (Status.REPAIRED, Status.VALID)


class Exit(IntFlag):
    """fsck's bits (contract, Exit codes); they add up."""

    CLEAN = 0
    REPAIRED = 1
    LEFT = 4
    FAILED = 8
    USAGE = 16
    INTERRUPTED = 32


# --------------------------------------------------------------------------- the log


class VdiRef(NamedTuple):
    """A VDI as a log or an operator names it: a full UUID, or a prefix of it.

    A prefix has at least 8 hex digits (4 for a temporary ``OLD_`` name). It is resolved, never
    guessed.
    """

    text: str

    @property
    def is_full(self) -> bool:
        """True for all 32 hex digits with their four dashes."""
        return len(self.text) == 36


class State(Enum):
    """An incident's life as the log tells it."""

    OPEN = "open"
    RESOLVED = "resolved"


class Evidence(NamedTuple):
    """A quoted line and where it stands."""

    file: str
    line: int
    text: str


class Surroundings(NamedTuple):
    """Where a VDI stands in its pool, as a bug report's database tells it; None and empty: unknown.

    `sr_master` is the name of the host on which the SR must be worked on. `parent` and `children` are the
    UUIDs of its neighbours in the chain.
    """

    sr_type: str | None = None
    sr_master: str | None = None
    parent: str | None = None
    children: tuple[str, ...] = ()


class Incident(NamedTuple):
    """One VDI in trouble, keyed (host, sr, vdi).

    `vdi` is a full UUID, or the prefix the log gives where it gives no more. `path` is the image as
    the log names it (None: it does not). `candidates` are full paths the log offers where they
    contradict each other: then nothing may be guessed. `count` is the number of SM runs that
    reported it. `copy` marks a downloaded or uploaded copy: the source disk is the one to repair.
    `format` is ``vhd``, or ``qcow2`` (qemu-img checks and repairs those). `proof` are the lines by which
    a resolved incident is over. `names` and `around` come from a bug report's database, else None.
    """

    vdi: VdiRef
    sr: str | None
    path: str | None
    kinds: tuple[str, ...]
    first_seen: datetime | None
    last_seen: datetime | None
    count: int  # type: ignore[assignment]  # of a tuple nobody counts anything
    evidence: tuple[Evidence, ...]
    state: State = State.OPEN
    host: str | None = None
    candidates: tuple[str, ...] = ()
    copy: bool = False
    format: str = "vhd"
    proof: tuple[Evidence, ...] = ()
    names: Names | None = None
    around: Surroundings | None = None


class LogReading(NamedTuple):
    """What a set of logs holds. `bytes` is what was read, unpacked; `notes` is said to the user.

    `noise` counts the lines that were set aside, by the reason, the most frequent first. `unread` are the
    logs of which nothing or only the beginning could be read, each with the reason (also in `notes`). Only reports
    from `since` to `until` count; None: from the first, to the last. `beside` are the older logs of the same rotated
    sets that were not asked for, and `wider` is the command that reads them too.
    """

    files: tuple[str, ...]
    bytes: int
    first: datetime | None
    last: datetime | None
    year_assumed: bool
    zone_assumed: bool
    incidents: tuple[Incident, ...]
    notes: tuple[str, ...] = ()
    noise: tuple[tuple[str, int], ...] = ()
    unread: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    beside: tuple[str, ...] = ()
    wider: NextStep | None = None


class Backing(Enum):
    """What holds the bytes: a file in a file SR, or a block device (an LV, a DRBD volume)."""

    FILE = "file"
    BLOCK = "block"


class Target(NamedTuple):
    """One image at hand: who it is, and the path by which it is opened."""

    path: str
    backing: Backing
    vdi: str | None = None
    sr: str | None = None

    @property
    def is_device(self) -> bool:
        """True if it is opened as a block device: its size is fixed, and its node is not where its bytes are."""
        return self.backing is Backing.BLOCK


# --------------------------------------------------------------------------- what use cases return


class Names(NamedTuple):
    """What the pool calls a disk, its SR, and the VMs that read it (a base copy: through its leaves).

    None and empty where nobody could be asked.
    """

    vdi: str | None = None
    sr: str | None = None
    vms: tuple[str, ...] = ()


NO_NAMES = Names()
"""What is known where nobody was asked."""


class Rescan(NamedTuple):
    """How an SR was handed back to the storage manager after repairs.

    `name`: the SR's, None where nobody could be asked. `done`: SR.scan ended well; `message` says why not.
    `unhealthy_before`, `unhealthy_after`: base copies with exactly one child, before and after the scan, None
    where unknown. `gc`, `coalesce`: the SR's switches, None where unknown. `next`: commands to type.
    """

    sr: str
    name: str | None
    done: bool
    message: str
    unhealthy_before: int | None = None
    unhealthy_after: int | None = None
    gc: bool | None = None
    coalesce: bool | None = None
    next: tuple[NextStep, ...] = ()


class CheckedImage(NamedTuple):
    """What `check` says of one image. `size` and `end_of_data` are bytes, None where unknown.

    `path` is the path by which it was opened, or the TARGET as given where nothing was opened.
    `note` is one line where the findings do not say it all (why it could not be read, who holds
    it, what this caller cannot see). `parent` is the path of its parent, where the chain was walked.
    `said` stands for the verdict where a name leads to no image (`ambiguous`, `not found`), `next` are commands to
    type then.
    """

    path: str
    verdict: Verdict
    size: int | None = None
    end_of_data: int | None = None
    findings: tuple[Finding, ...] = ()
    note: str | None = None
    names: Names = NO_NAMES
    parent: str | None = None
    said: str | None = None
    next: tuple[NextStep, ...] = ()


class ScannedImage(NamedTuple):
    """What `scan` says of one image: its check, and what places it in the SR. Sizes in bytes.

    `virtual_size` is the guest disk's, `allocated` the number of blocks with a place. `aligned`: the
    file's size is a multiple of 512. `uuid` and `parent_uuid` are the footer's and the header's (None:
    unknown, or no parent). `parent_place`: where a volume's parent locators lead. `depth` counts
    from the top of the chain among the images scanned together (0), `parent` is the path of the one below which it
    hangs, `standing` how.
    """

    checked: CheckedImage
    vdi: str | None = None
    sr: str | None = None
    virtual_size: int | None = None
    allocated: int | None = None
    aligned: bool | None = None
    hidden: bool | None = None
    in_use: InUse = InUse.UNKNOWN
    uuid: str | None = None
    parent_uuid: str | None = None
    parent_place: str | None = None
    parent: str | None = None
    depth: int = 0
    standing: str = "root"
    names: Names = NO_NAMES


class TreatedImage(NamedTuple):
    """What became of one TARGET. `missing`: there is no such target (its own exit bit). `sr`: its SR's UUID."""

    path: str
    outcome: Outcome
    missing: bool = False
    names: Names = NO_NAMES
    sr: str | None = None


class TreatedIncident(NamedTuple):
    """An incident with the disk it was resolved to and what became of that disk.

    `vdi`, `sr` and `path` are the resolved ones where resolving succeeded, else what the log says.
    `state` may be open although the log resolved it: its image is within reach and damaged.
    `outcome` is None for a resolved incident, and only for that.
    """

    id: str
    incident: Incident
    vdi: str
    sr: str | None
    path: str | None
    state: State
    outcome: Outcome | None
    names: Names = NO_NAMES

    @property
    def left(self) -> bool:
        """Open, and neither repaired nor valid."""
        return self.outcome is not None and not self.outcome.settled


class JournalRecord(NamedTuple):
    """One undo journal as `journal` tells it. Sizes in bytes.

    `state` is the journal's mark. `damage` says why everything else is unknown: the journal does
    not verify. `undo` is the complete command that puts the image back; None where there is
    nothing to put back. `newer` says which newer data an undo would take along. `fixes` are (code, message) of the
    findings cleared. `bytes` is the size of the journal's file.
    """

    id: str
    state: str
    file: str
    damage: str | None = None
    created: datetime | None = None
    path: str | None = None
    vdi: str | None = None
    sr: str | None = None
    old_size: int | None = None
    new_size: int | None = None
    edits: tuple[Edit, ...] = ()
    fixes: tuple[tuple[str, str], ...] = ()
    lost_sectors: int = 0
    command: tuple[str, ...] = ()
    undo: NextStep | None = None
    bytes: int | None = None
    newer: str | None = None


class Pruning(Enum):
    """What pruning does to a journal."""

    PRUNED = "pruned"
    WOULD_PRUNE = "would-prune"
    KEPT = "kept"
    FAILED = "failed"


class Pruned(NamedTuple):
    """What became of one journal when old ones were thrown away; `why` it was kept."""

    record: JournalRecord
    action: Pruning
    why: str | None = None
    message: str = ""


class Log:
    """The log of one module: why it decided as it did (``-v``), and every step (``--debug``).

    Silent until :mod:`smfix.host.log_output` sets `write`, which takes the module, a level of `logging`, and the text.
    """

    write: ClassVar[Callable[[str, int, str], None] | None] = None

    def __init__(self, module: str) -> None:
        self._module = module

    def info(self, text: str, *values: object) -> None:
        """Log a decision; `text` takes `values` as ``%`` does."""
        if Log.write is not None:
            Log.write(self._module, 20, text % values)

    def debug(self, text: str, *values: object) -> None:
        """Log a step."""
        if Log.write is not None:
            Log.write(self._module, 10, text % values)
