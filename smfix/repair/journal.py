"""The undo journal: what one repair changes, in one file that never changes. Pure.

A journal is made durable before the first byte of the image is written, and its content is never
touched again: how far the repair came is in the *name* of the file (:class:`JournalState`), which changes
by one atomic rename. So there is no moment at which a journal is half written, and any byte that
differs from what was written, is missing or was added, is damage: :func:`decode` refuses the file.

The file: a magic line with the format's version, the SHA-256 (hex) of magic and body, the body.
The body is one JSON object, readable with any pager; bytes of the image are base64 in it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from itertools import pairwise
from typing import Any

from smfix.errors import JournalDamaged, JournalNewer
from smfix.values import Backing, ByteView, Edit, Extent, Finding, Resize, Target, Write

FORMAT = 2
"""The newest format, the one that is written. Every format from 1 on is undone for ever (docs/adr/0017, 0021)."""
MAGIC = b"smfix-journal %d\n" % FORMAT
_VERSIONED = re.compile(rb"smfix-journal ([1-9][0-9]{0,8})\n")
# A repair rewrites a footer, a header, a BAT (4 MiB for a 2 TiB disk), a batmap, some bitmaps.
# What is larger than this is no journal of ours, and is not read into memory.
MAX_BYTES = 64 << 20
_MAX_OFFSET = 1 << 62
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}\Z")
_DIGEST = re.compile(rb"[0-9a-f]{64}\n\Z")
_SHA256 = 32


class JournalState(Enum):
    """How far a repair came: the suffix of its journal's name."""

    UNFINISHED = "unfinished"
    """Nothing, some or all of it is on the image; nobody has verified it."""
    APPLIED = "applied"
    """All of it is on the image, and the image was not sound when recovery looked: more is to be repaired."""
    VERIFIED = "verified"
    """The repair is on the image and was verified on a fresh open."""
    SUPERSEDED = "superseded"
    """The repair was interrupted, and the image went on without it: nothing of it is put back any more."""
    UNDOING = "undoing"
    """An undo began and did not end."""
    ROLLED_BACK = "rolled-back"
    """The image is as it was before the repair: the repair did not succeed."""
    UNDONE = "undone"
    """The image is as it was before the repair: somebody asked for it."""

    @property
    def is_open(self) -> bool:
        """True while the image may hold a mixture of old and new bytes."""
        return self in (JournalState.UNFINISHED, JournalState.UNDOING)

    @property
    def is_over(self) -> bool:
        """True when nothing is put back by this journal any more."""
        return self in (JournalState.SUPERSEDED, JournalState.ROLLED_BACK, JournalState.UNDONE)


@dataclass(frozen=True, slots=True)
class Change:
    """`after` takes the place of `before` at `offset` (bytes).

    `before` is shorter than `after` by the bytes after the old end of the file, which did not exist.
    """

    offset: int
    before: bytes
    after: bytes

    @property
    def extent(self) -> Extent:
        """The bytes it covers."""
        return Extent(self.offset, len(self.after))


Step = Change | Resize


@dataclass(frozen=True, slots=True)
class Reach:
    """The bytes that the repair made readable for the guest, as they were before the repair wrote.

    `total` bytes of the file, less what the repair writes itself; `guest` are runs of the guest's disk (bytes), for
    people. `digest` is over the bytes of `extents` (:func:`smfix.repair.reach_digest.digest_of`); None: they are too
    many to read, and `extents` is empty.
    """

    total: int
    guest: tuple[Extent, ...] = ()
    extents: tuple[Extent, ...] = ()
    digest: bytes | None = None

    def __post_init__(self) -> None:
        """Refuse what does not hold together."""
        if self.digest is None and self.extents:
            raise ValueError("there are places and no digest")
        if self.digest is not None and (
            len(self.digest) != _SHA256 or sum(extent.length for extent in self.extents) != self.total
        ):
            raise ValueError("the digest is not of these places")


@dataclass(frozen=True, slots=True)
class Journal:
    """One repair of one image: who it is, what is done to it in which order, and how to go back.

    Sizes in bytes. `device` and `inode` are those of the file or of the device node, `rdev` the
    number of the device itself (None: a file). `steps` never overlap, never shrink the image, and
    change at least one byte: else before and after could not be distinguished.
    `fixes` are (code, message) of the findings cleared, `lost` guest extents that are gone.
    `birth` and `generation` are the file's (:class:`smfix.host.statx.Lineage`), `uuids` those of the footers that
    were sound before or are after, `reach` is what the repair makes readable; None and empty: not known, as in a
    journal of format 1.
    Raises ValueError where these do not hold together.
    """

    id: str
    created: datetime
    version: str
    target: Target
    sr_root: str | None
    device: int
    inode: int
    rdev: int | None
    old_size: int
    new_size: int
    steps: tuple[Step, ...]
    fixes: tuple[tuple[str, str], ...] = ()
    lost: tuple[Extent, ...] = ()
    command: tuple[str, ...] = ()
    birth: int | None = None
    generation: int | None = None
    uuids: frozenset[str] = frozenset()
    reach: Reach | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be replayed in both directions."""
        if not _ID.match(self.id):
            raise ValueError("not a journal id")
        if self.created.tzinfo is None:
            raise ValueError("the time has no zone")
        if not self.target.path.startswith("/") or "\0" in self.target.path:
            raise ValueError("the path is not absolute")
        if min(self.device, self.inode, self.rdev or 0) < 0:
            raise ValueError("the identity is impossible")
        if not 0 <= self.old_size <= self.new_size < _MAX_OFFSET:
            raise ValueError("the sizes are impossible")
        if self.target.is_device != (self.rdev is not None):
            raise ValueError("a device has a device number, a file has none")
        if self.target.is_device and self.old_size != self.new_size:
            raise ValueError("a device cannot be resized")
        self._check_steps()

    def _check_steps(self) -> None:
        size = self.old_size
        for step in self.steps:
            if isinstance(step, Resize):
                if step.size < size:
                    raise ValueError("a step shrinks the image")
                size = step.size
                continue
            if not 0 <= step.offset <= size or not step.after:
                raise ValueError("a step writes behind the end, or nothing")
            inside = max(0, min(self.old_size, step.extent.end) - step.offset)
            if len(step.before) != inside:
                raise ValueError("a step does not know what it replaces")
            size = max(size, step.extent.end)
        if size != self.new_size:
            raise ValueError("the steps do not lead to the new size")
        if size == self.old_size and all(change.before == change.after for change in self.changes):
            raise ValueError("the steps change nothing")
        by_offset = sorted(change.extent for change in self.changes)
        for left, right in pairwise(by_offset):
            if left.overlaps(right):
                raise ValueError("two steps overlap")

    @property
    def changes(self) -> tuple[Change, ...]:
        """The steps that put bytes, in order."""
        return tuple(step for step in self.steps if isinstance(step, Change))

    @property
    def gaps(self) -> tuple[Extent, ...]:
        """The bytes that the repair added to the file without writing them: they read as NUL."""
        found = []
        at = self.old_size
        for extent in sorted(change.extent for change in self.changes):
            if extent.offset > at:
                found.append(Extent(at, extent.offset - at))
            at = max(at, extent.end)
        if at < self.new_size:
            found.append(Extent(at, self.new_size - at))
        return tuple(found)


def new_id(now: datetime, entropy: bytes) -> str:
    """An id that sorts by time: ``20251122-221903-3f9a1c`` (UTC, and three random bytes).

    `now` is aware; `entropy` has at least three bytes.
    """
    return f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{entropy[:3].hex()}"


def is_id(text: str) -> bool:
    """True for what :func:`new_id` makes."""
    return _ID.match(text) is not None


def settle(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """The same result without writes that overlap: each byte is written once, with its last value.

    Order is kept: a later write over an earlier one changes the earlier one's data, and only what
    is new of it remains as a write of its own. So a sector of the image holds its old bytes or its
    new ones, and nothing in between, whenever the repair is interrupted.
    """
    done: list[Edit] = []
    for edit in edits:
        if isinstance(edit, Resize):
            done.append(edit)
            continue
        rest = [edit] if edit.data else []
        for index, earlier in enumerate(done):
            if isinstance(earlier, Write) and earlier.extent.overlaps(edit.extent):
                done[index] = _over(earlier, edit)
                rest = [piece for part in rest for piece in _outside(part, earlier.extent)]
        done.extend(rest)
    return tuple(done)


def _over(earlier: Write, later: Write) -> Write:
    """`earlier`, with the bytes `later` puts in its place."""
    data = bytearray(earlier.data)
    start = max(earlier.offset, later.offset)
    end = min(earlier.extent.end, later.extent.end)
    data[start - earlier.offset : end - earlier.offset] = later.data[start - later.offset : end - later.offset]
    return Write(earlier.offset, bytes(data))


def _outside(write: Write, taken: Extent) -> list[Write]:
    """The parts of `write` before and after `taken`."""
    if not write.extent.overlaps(taken):
        return [write]
    before = write.data[: max(0, taken.offset - write.offset)]
    behind = write.data[max(0, taken.end - write.offset) :]
    pieces = [Write(write.offset, before), Write(write.extent.end - len(behind), behind)]
    return [piece for piece in pieces if piece.data]


def record(edits: Sequence[Edit], view: ByteView) -> tuple[tuple[Step, ...], int]:
    """The steps of `edits` with what they replace in `view`, and the size they lead to (bytes).

    Bytes that are there already make no step: nothing is written to a disk without need.

    Raises :class:`smfix.errors.Unreadable` when the storage fails.
    """
    old_size = size = view.size
    steps: list[Step] = []
    for edit in settle(edits):
        if isinstance(edit, Resize):
            if edit.size != size:
                steps.append(edit)
            size = edit.size
            continue
        inside = max(0, min(old_size, edit.extent.end) - edit.offset)
        before = view.read(Extent(edit.offset, inside)) if inside else b""
        if before != edit.data:
            steps.append(Change(edit.offset, before, edit.data))
        size = max(size, edit.extent.end)
    return tuple(steps), size


def cleared(findings: Iterable[Finding]) -> tuple[tuple[str, str], ...]:
    """The part of the cleared findings that a journal keeps."""
    return tuple((finding.code, finding.message) for finding in findings)


# --------------------------------------------------------------------------- the file


def encode(journal: Journal) -> bytes:
    """The journal as the content of its file."""
    body = json.dumps(_to_json(journal), sort_keys=True, indent=1).encode("ascii") + b"\n"
    return MAGIC + _digest(body) + b"\n" + body


def decode(data: bytes) -> Journal:
    """The journal in `data`.

    Raises :class:`smfix.errors.JournalDamaged` when one byte of it is not as it was written, and
    when what was written cannot be replayed; :class:`smfix.errors.JournalNewer` for a later format.
    """
    version = _VERSIONED.match(data)
    if version is not None and int(version[1]) > FORMAT:
        raise JournalNewer(
            f"its format is {int(version[1])}, this smfix knows formats up to {FORMAT}; use the smfix that wrote it, "
            "or a later one"
        )
    if version is None:
        raise JournalDamaged("it does not begin as a journal of smfix does")
    magic = version[0]
    digest = data[len(magic) : len(magic) + 65]
    body = data[len(magic) + 65 :]
    if not _DIGEST.match(digest) or digest[:64] != _digest(body, magic):
        raise JournalDamaged("its checksum does not match: bytes were changed, lost or added")
    try:
        return _from_json(json.loads(body), int(version[1]))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise JournalDamaged(f"its content makes no sense: {error}") from error


def _digest(body: bytes, magic: bytes = MAGIC) -> bytes:
    return hashlib.sha256(magic + body).hexdigest().encode("ascii")


def _to_json(journal: Journal) -> dict[str, Any]:
    target = journal.target
    return {
        "id": journal.id,
        "created": journal.created.isoformat(),
        "smfix": journal.version,
        "command": list(journal.command),
        "path": target.path,
        "backing": target.backing.value,
        "vdi": target.vdi,
        "sr": target.sr,
        "sr_root": journal.sr_root,
        "device": journal.device,
        "inode": journal.inode,
        "rdev": journal.rdev,
        "old_size": journal.old_size,
        "new_size": journal.new_size,
        "steps": [_step_to_json(step) for step in journal.steps],
        "fixes": [list(fix) for fix in journal.fixes],
        "lost": [list(extent) for extent in journal.lost],
        "birth": journal.birth,
        "generation": journal.generation,
        "uuids": sorted(journal.uuids),
        "reach": None if journal.reach is None else _reach_to_json(journal.reach),
    }


def _reach_to_json(reach: Reach) -> dict[str, Any]:
    return {
        "bytes": reach.total,
        "guest": [list(extent) for extent in reach.guest],
        "extents": [list(extent) for extent in reach.extents],
        "digest": None if reach.digest is None else reach.digest.hex(),
    }


def _step_to_json(step: Step) -> dict[str, Any]:
    if isinstance(step, Resize):
        return {"op": "resize", "size": step.size}
    return {
        "op": "write",
        "offset": step.offset,
        "before": base64.b64encode(step.before).decode("ascii"),
        "absent": len(step.after) - len(step.before),
        "after": base64.b64encode(step.after).decode("ascii"),
    }


def _from_json(body: dict[str, Any], version: int) -> Journal:
    """Raises ValueError, TypeError or KeyError: a right checksum proves who wrote, not what."""
    later = body if version > 1 else {"birth": None, "generation": None, "uuids": [], "reach": None}
    return Journal(
        id=_text(body["id"]),
        created=datetime.fromisoformat(_text(body["created"])),
        version=_text(body["smfix"]),
        target=Target(
            path=_text(body["path"]),
            backing=Backing(body["backing"]),
            vdi=_text_or_none(body["vdi"]),
            sr=_text_or_none(body["sr"]),
        ),
        sr_root=_text_or_none(body["sr_root"]),
        device=_whole(body["device"]),
        inode=_whole(body["inode"]),
        rdev=_whole_or_none(body["rdev"]),
        old_size=_whole(body["old_size"]),
        new_size=_whole(body["new_size"]),
        steps=tuple(_step_from_json(step) for step in body["steps"]),
        fixes=tuple((_text(code), _text(message)) for code, message in body["fixes"]),
        lost=_extents(body["lost"]),
        command=tuple(_text(word) for word in body["command"]),
        birth=_whole_or_none(later["birth"]),
        generation=_whole_or_none(later["generation"]),
        uuids=frozenset(_text(uuid) for uuid in later["uuids"]),
        reach=None if later["reach"] is None else _reach_from_json(later["reach"]),
    )


def _reach_from_json(reach: dict[str, Any]) -> Reach:
    digest = _text_or_none(reach["digest"])
    return Reach(
        total=_whole(reach["bytes"]),
        guest=_extents(reach["guest"]),
        extents=_extents(reach["extents"]),
        digest=None if digest is None else bytes.fromhex(digest),
    )


def _extents(pairs: list[list[int]]) -> tuple[Extent, ...]:
    return tuple(Extent(_whole(at), _whole(length)) for at, length in pairs)


def _step_from_json(step: dict[str, Any]) -> Step:
    if step["op"] == "resize":
        return Resize(_whole(step["size"]))
    change = Change(
        _whole(step["offset"]),
        base64.b64decode(_text(step["before"]), validate=True),
        base64.b64decode(_text(step["after"]), validate=True),
    )
    if step["op"] != "write" or step["absent"] != len(change.after) - len(change.before):
        raise ValueError("an unknown kind of step")
    return change


def _whole(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64:
        return value
    raise TypeError("a number is missing")


def _whole_or_none(value: object) -> int | None:
    return None if value is None else _whole(value)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise TypeError("a text is missing")


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)
