"""From a line that may matter to an event that does: identities found, evidence quoted.

Pure. Each :class:`Failure` is self-contained, for the window moves on. An identity is what the log
proves and nothing more: a path in the record itself, else the path of the same process' failed
check, else a path the same process names, else one the log names; else the digits as they are.
"""

from __future__ import annotations

import errno
import re
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from smfix.smlog.correlate.failed_commands import RECORD_LINES, Record, read_record
from smfix.smlog.correlate.process_runs import run_before, same_run, sr_of, srs_named, started_between
from smfix.smlog.parse.disk_names import (
    FILES,
    UUID,
    ImagePath,
    ShortName,
    image_path,
    image_paths,
    linstor_volume,
    short_name,
    volume_path,
)
from smfix.smlog.parse.prefixes import is_of_storage
from smfix.smlog.parse.timestamps import Stamp
from smfix.smlog.parse.window import REACH_BACK, Line, Position, Window
from smfix.smlog.patterns import pattern
from smfix.smlog.rules import messages, tool_output
from smfix.smlog.rules.messages import MessageKind, Rule
from smfix.smlog.rules.tool_output import Verdict, Weight

QUOTE_LINES = 12
QUOTE_CHARACTERS = 400
_MOST_ENDED = 64
_PROCESSES = 512  # whose complaints are remembered
_CHECKS = 8  # complaints remembered of each
_PROCESS_LINES = 400  # of a run that are asked which VDIs a scan named

_SCAN_NAMED = pattern(
    rf"\*\*\* (?:vhd-scan error|VHD info missing): (?P<vdi>{UUID})"
    rf"|\[VDI (?P<load>{UUID}): failed to read VHD metadata\]"
)
_MAY_BE_IMAGE = pattern(rb"\.(?:vhd|qcow2|raw)|(?:VHD|LV|QCOW2)-|for device ")
_TRANSFER = pattern(r"(?:down|up)load_vhd|XENAPI_PLUGIN_FAILURE")
# Printed after a check that another process or host ran; and the query that XOSTOR's documentation recommends.
_FOR_DEVICE = pattern(rf"for device (?P<path>/\S{{1,200}}) \((?P<vdi>{UUID})\)")
_KEPT_NAME = pattern(rf"xcp/volume/(?P<vdi>{UUID})/volume-name")
_FOLDER = pattern(r"(?:^|[#$>;&] ?)cd (?P<path>/[^\s;&'\"]{1,500})")
_PROMPT = pattern(rf"[\s:/](?P<sr>{UUID})\]?\s?[#$]")
NOISE_PROGRAMS = {
    "cbt-util": "a changed-block log that is missing or locked; backups fall back to a full one",
    "tap-ctl": "tapdisk's control; a tapdisk that has gone is no damage",
    "rbd": "Ceph's client",
}
# Exit codes that report on the storage, not the image: a message that a repair failed names no cause of the damage.
_OF_STORAGE = frozenset({
    errno.ENOENT, errno.EIO, errno.ENXIO, errno.EACCES, errno.EBUSY, errno.ENODEV, errno.EROFS, errno.ETIMEDOUT,
    errno.ESTALE, errno.ENOMEDIUM, errno.EMEDIUMTYPE,
})  # fmt: skip
_CRASHES = frozenset({-6, -7, -8, -11})  # SIGABRT, SIGBUS, SIGFPE, SIGSEGV
# If these messages name no path, they are about the image after -n.
_ABOUT_ITS_IMAGE = frozenset({"check", "repair", "resize"})
_OTHER_PROGRAM = "a command other than vhd-util failed"
_UNCHECKED = "the check could not run: the image is open elsewhere, or its storage is read-only"
TOO_SLOW = "reading the line took more than a second: please report it, with the line"
_UNEXPLAINED = "vhd-util called an image invalid, and the log does not say why: smfix check tells"
_UNSPOKEN = "vhd-util failed without naming damage, and no EXCEPTION calls the VDI corrupted"
_NOBODY = "a scan failed and the log does not name the VDI"


class Quote(NamedTuple):
    """One line of evidence: the index of its file, its number there, its text (bounded)."""

    file: int
    line: int
    text: str


LogSource = tuple[str | None, int]
"""Who logs: the host, and the set of logs where they name no host (else 0)."""


class Failure(NamedTuple):
    """A report in the log that one image is damaged.

    `place` is its place in the logical text of all logs (bytes), `file` the index of the file. `vdi`
    is a full UUID, a prefix, or empty if only the path is known. `weight` below DAMAGE needs an
    EXCEPTION of the same run to count. `fresh`: the pid was used again since its last report.
    """

    place: int
    file: int
    stamp: Stamp | None
    voice: LogSource
    pid: int | None
    vdi: str
    sr: str | None
    path: str | None
    kinds: tuple[str, ...]
    weight: Weight
    evidence: tuple[Quote, ...]
    copy: bool = False
    format: str = "vhd"
    candidates: tuple[str, ...] = ()
    fresh: bool = False

    @property
    def host(self) -> str | None:
        """Return the host that logged it, if the log names one."""
        return self.voice[0]


class GcEnded(NamedTuple):
    """GC of `sr` (None: the log does not name it) ended its run because a lock was held. `place` as in a Failure."""

    place: int
    sr: str | None


class EventReader:
    """Reads the lines an engine points at. One reader per window, lines in ascending order.

    `gc_ended` holds the latest GCs that ended early, until the caller takes them.
    """

    def __init__(self, window: Window, origin: int = 0) -> None:
        self.noise: Counter[str] = Counter()
        self.gc_ended: deque[GcEnded] = deque(maxlen=_MOST_ENDED)
        self._window = window
        self._origin = origin
        self._read: set[Position] = set()  # lines that belong to a record already read
        self._complaints: OrderedDict[tuple[str | None, int], list[Failure]] = OrderedDict()
        self._reported: OrderedDict[tuple[str | None, int], int] = OrderedDict()
        self._asked_last = (Position(-1, 0), 0, False)

    def forget(self, serial: int) -> None:
        """Forget lines of blocks before `serial`, which have left the window."""
        self._read = {at for at in self._read if at.block >= serial}

    def read(self, line: Line) -> Iterator[Failure]:
        """Yield the failures that `line` reports, if any."""
        if line.at in self._read:
            return
        try:
            matched = messages.match(line.text)
            if matched is None or not messages.is_said(*matched, line):
                return
            for failure in self._say(line, *matched):
                yield self._report(failure, line)
        except TimeoutError:
            self.noise[TOO_SLOW] += 1

    def _say(self, line: Line, rule: Rule, found: re.Match[str]) -> Iterator[Failure]:
        if rule.kind is MessageKind.CORRUPTED:
            yield from self._corrupted(line, found)
        elif rule.kind is MessageKind.FAILED:
            yield from self._failed(line, found)
        elif rule.kind is MessageKind.INVALID:
            yield from self._invalid(line)
        elif rule.kind is MessageKind.SCAN_ERROR:
            yield from self._scan_error(line, found)
        elif rule.kind is MessageKind.SCAN_BLOCKED:
            yield from self._scan_blocked(line)
        elif rule.kind is MessageKind.SCAN_REFUSED:
            yield self._scan_refused(line, found["vdi"] or found["lvm"])
        elif rule.kind is MessageKind.REWORDED:
            yield from self._reworded(line, found)
        elif rule.kind is MessageKind.OPEN_REFUSED:
            yield from self._open_refused(line, found["path"])
        elif rule.kind is MessageKind.PARENT_MISSING:
            image = ImagePath("", found["parent"].lower(), sr_of(self._window, line))
            yield self._failure(line, image, ("parent-missing",), Weight.DAMAGE, [line])
        elif rule.kind is MessageKind.GC_ENDED:
            self.gc_ended.append(GcEnded(self._window.place(line.at), sr_of(self._window, line)))
        else:
            self.noise[rule.why] += 1

    # ---------------------------------------------------------------- records

    def _failed(self, line: Line, found: re.Match[str]) -> Iterator[Failure]:
        record = read_record(self._window, line, found)
        if record.command and record.program not in {"vhd-util", "qemu-img"}:
            self.noise[NOISE_PROGRAMS.get(record.program, _OTHER_PROGRAM)] += 1
            self._read.update(part.at for part in record.lines)
            return
        if record.action != "scan":  # a scan's lines tell of one image each
            self._read.update(part.at for part in record.lines)
        noted = False
        for verdict in self._of_record(record):
            failure = self._judge(verdict, line, [line])
            if failure is None:
                continue
            self._remember(failure)
            noted = True
            if failure.weight is Weight.DAMAGE:
                yield failure
            else:
                self.noise[_UNSPOKEN] += 1
        if not noted and record.action != "scan":
            self.noise[_UNSPOKEN] += 1

    def _of_record(self, record: Record) -> list[Verdict[Line]]:
        """Assign the record's messages to images; an image missing from the output comes from the command."""
        said = tool_output.verdicts(zip(record.texts, record.lines, strict=True))
        image = record.image
        if image is not None and record.action in _ABOUT_ITS_IMAGE:
            if not said and record.action != "resize":  # of a resize only its output counts
                said = [Verdict(said=[record.lines[0]])]
            if said and said[-1].path is None:
                said[-1].path = image.path
        if record.action == "repair" and record.code not in _OF_STORAGE:
            for verdict in said:
                verdict.complaints.insert(0, tool_output.REPAIR_FAILED)
        if record.code in _CRASHES and image is not None:
            said = [verdict for verdict in said if verdict.path] or [Verdict(said=[record.lines[0]])]
            said[-1].path = said[-1].path or image.path
            said[-1].complaints.append(tool_output.CRASHED)
        if record.action == "check" and record.code == errno.EROFS:
            for verdict in said:
                verdict.complaints.append(tool_output.UNCHECKED)
        return [verdict for verdict in said if verdict.path]

    def _judge(self, verdict: Verdict[Line], at: Line, head: list[Line]) -> Failure | None:
        image = image_path(verdict.path) if verdict.path else None
        if image is None:
            return None
        quoted = dict.fromkeys([*head, *verdict.said])
        if not linstor_volume(image.path):
            if not image.path.startswith("/"):
                image = self._in_folder(image, verdict.said[-1])
            return self._failure(at, image, verdict.kinds, verdict.weight, quoted)
        vdi, teller = self._vdi_of_volume(at, image.path)
        image = image._replace(vdi=vdi, sr=sr_of(self._window, at) or (sr_of(self._window, teller) if teller else None))
        failure = self._failure(at, image, verdict.kinds, verdict.weight, quoted)
        # The garbage collector had the check run by a process of the plugin's: one report of its run.
        return failure._replace(pid=teller.pid) if teller and teller.pid and teller.host == at.host else failure

    def _vdi_of_volume(self, line: Line, path: str) -> tuple[str | None, Line | None]:
        """Return the VDI in a LINSTOR volume, if the log shows it; with the line of the process that had it checked.

        That process names the VDI after the check; other processes before it; an operator's look-up is anywhere.
        """
        device = f"for device {path} (".encode(), _FOR_DEVICE
        kept = f'"{path.split("/")[4].removeprefix("xcp-volume-")}"'.encode(), _KEPT_NAME
        for needle, wording in (device, kept):
            for near in (self._window.naming_after, self._window.naming_before):
                for other in near(line.at, (needle,)):
                    if found := wording.search(other.text):
                        is_told_after = wording is _FOR_DEVICE and near == self._window.naming_after
                        return found["vdi"].lower(), other if is_told_after else None
        return None, None

    def _in_folder(self, image: ImagePath, line: Line) -> ImagePath:
        """Resolve a name in a terminal's output: the `cd` before it names its folder, or a prompt only the SR."""
        name = image.path.removeprefix("./")
        for other in islice(self._window.before(line.at), RECORD_LINES):
            if folder := _FOLDER.search(other.text):
                whole = image_path(f"{folder['path'].rstrip('/')}/{name}")
                return whole or image._replace(path="")
            if prompt := _PROMPT.search(other.text):
                image = image._replace(sr=image.sr or prompt["sr"].lower())
        return image._replace(path="")

    # ---------------------------------------------------------------- output without a record

    def _invalid(self, line: Line) -> Iterator[Failure]:
        """Read a verdict outside a record: its complaint is in the lines before it, or in it."""
        context: list[Line] = []
        for other in islice(self._window.before(line.at), 6):
            if not other.text.strip() and not line.has_prefix:
                continue  # mail and wikis double line ends
            same_voice = other.pid == line.pid and other.has_prefix == line.has_prefix
            if not same_voice or tool_output.APPEARS_INVALID.search(other.text):
                break
            if not tool_output.complaint(other.text):
                break
            context.insert(0, other)
        dated = self._dated(line)
        above = [dated.text, *(o.text for o in islice(self._window.before(line.at), 8))]
        transfer = any(_TRANSFER.search(text) for text in (line.text, *above))
        head = [dated] if transfer and dated is not line else []
        for verdict in tool_output.verdicts((part.text, part) for part in (*context, line)):
            failure = self._judge(verdict, dated, head)
            if failure is None:
                continue
            if not verdict.complaints:
                self.noise[_UNEXPLAINED] += 1
            # On a file SR a parent is there or not; an inactive volume looks as if it were missing.
            is_lost = failure.kinds == ("parent-missing",) and not line.has_prefix and FILES in (failure.path or "")
            if failure.weight is Weight.DAMAGE or is_lost:
                failure = failure._replace(weight=Weight.DAMAGE)
                pid = dated.pid if dated is line else None
                yield failure._replace(place=self._window.place(line.at), copy=failure.copy or transfer, pid=pid)

    def _reworded(self, line: Line, found: re.Match[str]) -> Iterator[Failure]:
        """Nova's words for the first line that vhd-util printed."""
        said = {"footer": "primary footer invalid:", "header": "header is invalid:"}.get(found["part"], "")
        row = tool_output.complaint(f"{said}{found['details']}")
        verdict: Verdict[Line] = Verdict([line])
        verdict.path, verdict.complaints = found["path"], [row] if row else []
        failure = self._judge(verdict, line, [])
        if failure is not None and failure.weight is Weight.DAMAGE:
            yield failure
        else:
            self.noise[_UNSPOKEN] += 1

    def _open_refused(self, line: Line, path: str) -> Iterator[Failure]:
        """Tapdisk finds the metadata of the image, or of one of its parents, invalid."""
        image = image_path(path)
        if image is not None:
            yield self._failure(line, image, ("open-failed",), Weight.DAMAGE, [line])

    def _dated(self, line: Line) -> Line:
        """Return the nearest line above that carries a time: an unprefixed line is from then."""
        if line.has_prefix:
            return line
        for other in islice(self._window.before(line.at), RECORD_LINES):
            if other.has_prefix:
                return other
        return line

    # ---------------------------------------------------------------- scans

    def _scan_error(self, line: Line, found: re.Match[str]) -> Iterator[Failure]:
        image = image_path(found["path"])
        if image is None:
            return
        if line.pid is None and not image.path.startswith("/"):
            image = self._in_folder(image, line)
        elif image.sr is None and not linstor_volume(image.path):
            sr = sr_of(self._window, line)
            image = image._replace(path=volume_path(image.path, sr) or "", sr=sr)
        weight = Weight.DAMAGE if int(found["code"]) == -22 else Weight.STORAGE
        failure = self._failure(line, image, ("scan-error",), weight, [line])
        self._remember(failure)
        if weight is Weight.DAMAGE:
            yield failure
        else:
            self.noise[_UNSPOKEN] += 1

    def _scan_blocked(self, line: Line) -> Iterator[Failure]:
        """Yield an EXCEPTION that stops the garbage collection of an SR: its run named the VDIs."""
        named = {
            f"{earlier.sr}/{earlier.vdi}": earlier._replace(kinds=("scan-error",))
            for earlier in self._remembered(line)
            if "scan-error" in earlier.kinds
        }
        if not named:
            named = {failure.vdi: failure for failure in self._scan_named(line)}
        if not named:
            self.noise[_NOBODY] += 1
        for earlier in named.values():
            yield earlier._replace(
                place=self._window.place(line.at),
                file=self._window.file(line.at),
                stamp=line.stamp,
                weight=Weight.DAMAGE,
                evidence=bounded((*earlier.evidence, self._quote(line))),
            )

    def _scan_named(self, line: Line) -> Iterator[Failure]:
        for other in islice(run_before(self._window, line), _PROCESS_LINES):
            if found := _SCAN_NAMED.search(other.text):
                image = ImagePath("", (found["vdi"] or found["load"]).lower(), sr_of(self._window, line))
                yield self._failure(other, image, ("scan-error",), Weight.DAMAGE, [other])

    def _scan_refused(self, line: Line, vdi: str) -> Failure:
        vdi = vdi.lower()
        for earlier in self._remembered(line):
            if earlier.vdi == vdi:
                image = ImagePath("", vdi, earlier.sr)
                failure = self._failure(line, image, ("scan-error",), Weight.DAMAGE, [line])
                return failure._replace(path=earlier.path)
        image = ImagePath("", vdi, sr_of(self._window, line))
        return self._failure(line, image, ("scan-error",), Weight.DAMAGE, [line])

    # ---------------------------------------------------------------- exceptions

    def _corrupted(self, line: Line, found: re.Match[str]) -> Iterator[Failure]:
        short = short_name(found["short"])
        before = line.text[: found.start()].strip()
        kind = "leaf-coalesce-corrupted" if "leaf" in before.lower() else "coalesce-corrupted"
        is_qcow2 = "[qcow2]" in found.group().lower()
        for earlier in reversed(self._remembered(line)):
            if _fits(earlier, short):
                if earlier.weight is Weight.UNCHECKED:
                    self.noise[_UNCHECKED] += 1
                    return
                sr = earlier.sr or sr_of(self._window, line)
                image = ImagePath(earlier.path or "", earlier.vdi or short.digits, sr, earlier.copy)
                kinds = (kind, *earlier.kinds)
                failure = self._failure(line, image, kinds, Weight.DAMAGE, [line], earlier.evidence)
                yield failure._replace(format="qcow2" if is_qcow2 else earlier.format)
                return
        image, candidates = self._named(line, short)
        failure = self._failure(line, image, (kind,), Weight.DAMAGE, [line], candidates=candidates)
        yield failure._replace(format="qcow2" if is_qcow2 else failure.format)

    def _named(self, line: Line, short: ShortName) -> tuple[ImagePath, tuple[str, ...]]:
        """Return the image with those digits: named by the process, else anywhere within reach.

        Several that differ: the digits as they are, and all of the paths.
        """
        digits = short.digits
        if not digits or short.temporary:
            return ImagePath("", digits, sr_of(self._window, line)), ()
        sr: str | None = None
        for other in run_before(self._window, line):
            named = srs_named(other.text)
            if sr is not None and named - {sr}:
                break  # it names another SR: another run
            sr = sr or next(iter(named), None)
            found = _images(other.text, digits, None)
            if found:
                if len(found) == 1:
                    image = found[0]
                    is_volume = linstor_volume(image.path)
                    return image._replace(sr=sr_of(self._window, line)) if is_volume else image, ()
                return self._undecided(digits, found, sr_of(self._window, line))
        sr = sr_of(self._window, line)
        images: dict[tuple[str | None, str | None], ImagePath] = {}
        known: set[bytes] = set()
        for serial, offset, around in self._window.texts_around(line.at, f"{digits}-".encode()):
            if around in known or not _MAY_BE_IMAGE.search(around):
                continue
            other = self._window.line_around(serial, offset)
            if other.at != line.at and other.host == line.host and is_of_storage(other.ident):
                for image in _images(other.text, digits, sr):
                    known.add(around)
                    images.setdefault((image.sr, image.vdi), image)
        if len(images) == 1:
            return next(iter(images.values())), ()
        return self._undecided(digits, list(images.values()), sr)

    @staticmethod
    def _undecided(digits: str, images: list[ImagePath], sr: str | None) -> tuple[ImagePath, tuple[str, ...]]:
        return ImagePath("", digits, sr), tuple(image.path for image in images)

    # ---------------------------------------------------------------- memory

    def _remembered(self, line: Line) -> list[Failure]:
        """Return the complaints of this run of the process, oldest first."""
        if line.pid is None:
            return []
        floor = self._window.place(line.at) - REACH_BACK
        found = [
            earlier
            for earlier in self._complaints.get((line.host, line.pid), [])
            if earlier.place >= floor and same_run(earlier.stamp, line.stamp)
        ]
        while found and self._started_since(line, found[0].place):
            del found[0]
        return found

    def _remember(self, failure: Failure) -> None:
        if failure.pid is None:
            return
        key = (failure.host, failure.pid)
        earlier = self._complaints.setdefault(key, [])
        self._complaints.move_to_end(key)
        if earlier and earlier[-1].sr != failure.sr and None not in (earlier[-1].sr, failure.sr):
            earlier.clear()  # the pid names another SR: another run
        earlier.append(failure)
        del earlier[:-_CHECKS]
        if len(self._complaints) > _PROCESSES:
            self._complaints.popitem(last=False)

    def _report(self, failure: Failure, line: Line) -> Failure:
        """Return `failure`, marked fresh if its pid was used again since it last reported."""
        if failure.pid is None:
            return failure
        key = (failure.host, failure.pid)
        before = self._reported.pop(key, 0)
        self._reported[key] = failure.place
        if len(self._reported) > _PROCESSES:
            self._reported.popitem(last=False)
        # Not remembered, or out of reach: search as far as a search goes, whatever the reader.
        floor = max(before, failure.place - REACH_BACK)
        return failure._replace(fresh=True) if self._started_since(line, floor) else failure

    def _started_since(self, line: Line, place: int) -> bool:
        """Cache :func:`started_between`, because one line mostly asks it twice."""
        if self._asked_last[:2] != (line.at, place):
            self._asked_last = line.at, place, started_between(self._window, line, place)
        return self._asked_last[2]

    # ---------------------------------------------------------------- events

    def _failure(
        self,
        at: Line,
        image: ImagePath,
        kinds: tuple[str, ...],
        weight: Weight,
        lines: Iterable[Line],
        quoted: tuple[Quote, ...] = (),
        candidates: tuple[str, ...] = (),
    ) -> Failure:
        return Failure(
            place=self._window.place(at.at),
            file=self._window.file(at.at),
            stamp=at.stamp,
            voice=voice(at, self._origin),
            pid=at.pid,
            vdi=image.vdi or "",
            sr=image.sr,
            path=image.path or None,
            kinds=kinds,
            weight=weight,
            evidence=bounded((*quoted, *(self._quote(line) for line in lines))),
            copy=image.copy,
            format=image.format,
            candidates=candidates,
        )

    def _quote(self, line: Line) -> Quote:
        return quote(self._window, line)


def voice(line: Line, origin: int) -> LogSource:
    """Return the writer of `line`."""
    return (line.host, 0) if line.host is not None else (None, origin)


def quote(window: Window, line: Line) -> Quote:
    """Return `line` as evidence."""
    return Quote(window.file(line.at), window.number(line.at), line.raw[:QUOTE_CHARACTERS])


def bounded(quotes: tuple[Quote, ...]) -> tuple[Quote, ...]:
    """Return at most QUOTE_LINES of `quotes`, each once: the first ones and the last."""
    unique = tuple(dict.fromkeys(quotes))
    return unique if len(unique) <= QUOTE_LINES else (*unique[: QUOTE_LINES - 1], unique[-1])


def _fits(earlier: Failure, short: ShortName) -> bool:
    """Return True if `earlier` is a complaint about the VDI that a short name calls corrupted."""
    if earlier.path and linstor_volume(earlier.path):
        return not earlier.vdi or earlier.vdi.startswith(short.digits)
    if short.temporary:
        name = (earlier.path or "").rpartition("/")[2]
        return ("OLD_" in name or "DELETED_" in name) and earlier.vdi.startswith(short.digits)
    return earlier.vdi.startswith(short.digits)


def _images(text: str, digits: str, sr: str | None) -> list[ImagePath]:
    """Return the images in `text` whose VDI starts with `digits` (on `sr`, if that is known)."""
    device = _FOR_DEVICE.search(text)
    named = [ImagePath(device["path"], device["vdi"].lower(), None)] if device else []
    found = {
        (image.sr, image.vdi): image
        for image in (*image_paths(text), *named)
        if image.vdi and image.vdi.startswith(digits) and (sr is None or image.sr in (None, sr))
    }
    return list(found.values())
