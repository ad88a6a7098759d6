"""From a line that may matter to an event that does: records assembled, identities found.

Pure. Each :class:`Failure` is self-contained (its evidence is quoted), for the window moves on. An
identity is what the log proves and nothing more: a path in the record itself, else the path of the
same process' failed check, else a path of the same process, else the digits as they are.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from smfix.smlog import rules
from smfix.smlog.lines import Line, Position, Window
from smfix.smlog.names import ImagePath, image_path, image_paths, short_name
from smfix.smlog.processes import same_run, sr_of
from smfix.smlog.rules import Says, Weight
from smfix.smlog.stamps import Stamp

RECORD_LINES = 200  # of one FAILED record; vhd-util's longest dump has some 60
QUOTE_LINES = 12
QUOTE_CHARACTERS = 400
_COMMAND_WITHIN = 12  # lines of the process between a command and its failure
_PROCESSES = 512  # whose failed checks are remembered
_CHECKS = 8  # failed checks remembered of each

_COMMAND = re.compile(r"\s*\[\s*(?:'[^']*'|\"[^\"]*\")(?:\s*,\s*(?:'[^']*'|\"[^\"]*\"))*\s*\]")
_ARGUMENT = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_STDERR = re.compile(r"', stderr: '")
_APPEARS_INVALID = re.compile(r"(?P<path>/\S{1,500}) appears invalid(?:; dumping|;?$)")
_IS_VALID = re.compile(r"(?P<path>/\S{1,500}) is valid\b")
_NAMES_PATH = re.compile(r"(?:opening|open|stat) (?P<path>/[^\s:']{1,500})")
# What can only be the start of another message: the record before it lost its end.
_ANOTHER_MESSAGE = re.compile(r"\s*\[['\"]|\s+pread3? SUCCESS|FAILED(?: in|:)|.{0,200}: EXCEPTION ")


@dataclass(frozen=True, slots=True)
class Quote:
    """One line of evidence: the index of its file, its number there, its text (bounded)."""

    file: int
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Something in the log says that one image is damaged.

    `vdi` is a full UUID, a prefix, or empty where nothing names it. `weight` below DAMAGE needs an
    EXCEPTION of the same run to count. `order` sorts events by their place in the logs.
    """

    order: Position
    stamp: Stamp | None
    host: str | None
    pid: int | None
    vdi: str
    sr: str | None
    path: str | None
    kinds: tuple[str, ...]
    weight: Weight
    evidence: tuple[Quote, ...]
    copy: bool = False
    candidates: tuple[str, ...] = ()


@dataclass(slots=True)
class _Verdict:
    """What vhd-util said of one image, and the lines in which it did."""

    path: str | None = None
    complaints: list[rules.Complaint] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)


class EventReader:
    """Reads the lines an engine points at. One reader per window, lines in ascending order."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._read: set[Position] = set()  # lines that belong to a record already read
        self._checks: OrderedDict[tuple[str | None, int], list[Failure]] = OrderedDict()

    def forget(self, serial: int) -> None:
        """Blocks before `serial` have left the window."""
        self._read = {at for at in self._read if at.block >= serial}

    def read(self, line: Line) -> Iterator[Failure]:
        """What `line` tells, if anything."""
        if line.at in self._read:
            return
        matched = rules.match(line.text)
        if matched is None:
            return
        rule, found = matched
        if rule.says is Says.CORRUPTED:
            yield from self._corrupted(line, found)
        elif rule.says is Says.FAILED:
            yield from self._failed(line, found)
        elif rule.says is Says.INVALID:
            yield from self._invalid(line)

    # ---------------------------------------------------------------- records

    def _failed(self, line: Line, found: re.Match[str]) -> Iterator[Failure]:
        record = [line, *self._record_rest(line)]
        self._read.update(part.at for part in record)
        command_line = self._command_before(line)
        command = _arguments(command_line.text) if command_line else []
        if command and not command[0].endswith("vhd-util"):
            return
        texts = [found["stdout"], *(part.text for part in record[1:])]
        verdicts = _verdicts(zip(texts, record, strict=True))
        is_check = "check" in command[1:2]
        named = _last_image(command)
        if named is not None and not any(verdict.path for verdict in verdicts):
            verdicts = verdicts or [_Verdict(lines=[line])]
            verdicts[-1].path = named.path
        for verdict in verdicts:
            failure = self._judge(verdict, [line], is_check=is_check)
            if failure is None:
                continue
            self._remember(failure)
            if failure.weight is Weight.DAMAGE:
                yield failure

    def _record_rest(self, line: Line) -> Iterator[Line]:
        """The lines behind a FAILED line that belong to its record."""
        closing = _STDERR.search(line.text)
        if closing and line.text.endswith("'") and closing.end() <= len(line.text) - 1:
            return
        in_stderr = closing is not None
        for other in self._window.voice_after(line, RECORD_LINES):
            if _ANOTHER_MESSAGE.match(other.text):
                return
            yield other
            in_stderr = in_stderr or _STDERR.search(other.text) is not None
            if in_stderr and other.text.endswith("'"):
                return

    def _command_before(self, line: Line) -> Line | None:
        for other in islice(self._window.of_process_before(line), _COMMAND_WITHIN):
            if _COMMAND.match(other.text):
                return other
        return None

    def _invalid(self, line: Line) -> Iterator[Failure]:
        """A verdict outside a record: its complaint stands in the lines before it, or in it."""
        before = [
            other
            for other in islice(self._window.before(line.at), 6)
            if other.pid == line.pid and other.host == line.host
        ]
        context: list[Line] = []
        for other in before:
            if _APPEARS_INVALID.search(other.text) or not rules.complaint(other.text):
                break
            context.insert(0, other)
        rest = list(islice(self._window.voice_after(line, 8), 8)) if not line.has_prefix else []
        lines = [*context, line, *(x for x in rest if not _APPEARS_INVALID.search(x.text))]
        for verdict in _verdicts((x.text, x) for x in lines):
            if verdict.path is None:
                continue
            anchor = line if line.has_prefix else self._dated(line)
            failure = self._judge(verdict, [], is_check=True, at=anchor)
            if failure is not None and failure.weight is Weight.DAMAGE:
                yield failure

    def _dated(self, line: Line) -> Line:
        """The nearest line above that carries a time: when, and who, an unprefixed line is from."""
        for other in islice(self._window.before(line.at), RECORD_LINES):
            if other.has_prefix:
                return other
        return line

    def _judge(self, verdict: _Verdict, head: list[Line], *, is_check: bool, at: Line | None = None) -> Failure | None:
        image = image_path(verdict.path) if verdict.path else None
        if image is None or (not is_check and not verdict.complaints):
            return None
        kinds, weight = _kinds(verdict.complaints)
        first = at or (head or verdict.lines)[0]
        quoted = dict.fromkeys([*head, *verdict.lines])
        return self._failure(first, image, kinds, weight, quoted)

    # ---------------------------------------------------------------- exceptions

    def _corrupted(self, line: Line, found: re.Match[str]) -> Iterator[Failure]:
        short = short_name(found["short"])
        if short is None:
            return
        tag = found["tag"].strip()
        kind = "leaf-coalesce-corrupted" if "leaf" in tag.lower() else "coalesce-corrupted"
        check = self._failed_check(line, short.digits)
        if check is not None:
            image = ImagePath(check.path or "", check.vdi, check.sr, check.copy)
            kinds = (kind, *check.kinds)
            yield self._failure(line, image, kinds, Weight.DAMAGE, [line], check.evidence)
            return
        named, candidates = self._named_by_process(line, short.digits)
        image = named or ImagePath("", short.digits, sr_of(self._window, line))
        yield self._failure(line, image, (kind,), Weight.DAMAGE, [line], candidates=candidates)

    def _failed_check(self, line: Line, digits: str) -> Failure | None:
        """The last failed check of this run of the process whose image starts with `digits`."""
        if line.pid is None:
            return None
        for check in reversed(self._checks.get((line.host, line.pid), [])):
            if not same_run(check.stamp, line.stamp):
                return None
            if check.vdi.startswith(digits):
                return check
        return None

    def _named_by_process(self, line: Line, digits: str) -> tuple[ImagePath | None, tuple[str, ...]]:
        """The image with `digits` that this run of the process names; all of them where they differ."""
        found: dict[str, ImagePath] = {}
        for other in self._window.of_process_before(line):
            if not same_run(other.stamp, line.stamp):
                break
            for image in image_paths(other.text):
                if image.vdi and image.vdi.startswith(digits):
                    found.setdefault(f"{image.sr}/{image.vdi}", image)
            if found:
                break
        if len(found) == 1:
            return next(iter(found.values())), ()
        return None, tuple(image.path for image in found.values())

    def _remember(self, failure: Failure) -> None:
        if failure.pid is None:
            return
        checks = self._checks.setdefault((failure.host, failure.pid), [])
        self._checks.move_to_end((failure.host, failure.pid))
        checks.append(failure)
        del checks[:-_CHECKS]
        if len(self._checks) > _PROCESSES:
            self._checks.popitem(last=False)

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
            order=at.at,
            stamp=at.stamp,
            host=at.host,
            pid=at.pid,
            vdi=image.vdi or "",
            sr=image.sr,
            path=image.path or None,
            kinds=kinds,
            weight=weight,
            evidence=bounded((*quoted, *(self._quote(line) for line in lines))),
            copy=image.copy,
            candidates=candidates,
        )

    def _quote(self, line: Line) -> Quote:
        window = self._window
        return Quote(window.file(line.at), window.number(line.at), line.raw[:QUOTE_CHARACTERS])


def bounded(quotes: tuple[Quote, ...]) -> tuple[Quote, ...]:
    """At most QUOTE_LINES of `quotes`, each once: the first ones and the last."""
    unique = tuple(dict.fromkeys(quotes))
    return unique if len(unique) <= QUOTE_LINES else (*unique[: QUOTE_LINES - 1], unique[-1])


def _arguments(command: str) -> list[str]:
    found = _COMMAND.match(command)
    text = found.group() if found else ""
    return [single or double for single, double in _ARGUMENT.findall(text)]


def _last_image(command: list[str]) -> ImagePath | None:
    """The image a vhd-util command is about: what follows ``-n``."""
    if "-n" in command[:-1]:
        return image_path(command[command.index("-n") + 1])
    return None


def _verdicts(texts: Iterable[tuple[str, Line]]) -> list[_Verdict]:
    r"""What vhd-util's output says, image by image; complaints stand before their path.

    A trace carries the output in one line with literal ``\n``.
    """
    verdicts: list[_Verdict] = []
    pending = _Verdict()
    for text, line in texts:
        for part in text.split("\\n"):
            if row := rules.complaint(part):
                named = _NAMES_PATH.search(part)
                path = named["path"] if named else None
                if verdicts and not pending.complaints and path == verdicts[-1].path:
                    verdicts[-1].complaints.append(row)  # "Failed to open" follows its verdict
                    verdicts[-1].lines.append(line)
                    continue
                pending.complaints.append(row)
                pending.lines.append(line)
                pending.path = path or pending.path
            elif found := _APPEARS_INVALID.search(part):
                if verdicts and verdicts[-1].path == found["path"] and not pending.complaints:
                    continue  # "dumping metadata", then "dumping headers"
                pending.path = found["path"]
                pending.lines.append(line)
                verdicts.append(pending)
                pending = _Verdict()
            elif _IS_VALID.search(part):
                pending = _Verdict()
    if pending.complaints:
        verdicts.append(pending)
    return verdicts


def _kinds(complaints: list[rules.Complaint]) -> tuple[tuple[str, ...], Weight]:
    """The kinds that `complaints` make. `open-failed` only where nothing says more."""
    kinds = [row.kind for row in complaints if row.weight is Weight.DAMAGE]
    named = tuple(dict.fromkeys(kind for kind in kinds if kind != "open-failed"))
    if kinds:
        return named or ("open-failed",), Weight.DAMAGE
    others = tuple(dict.fromkeys(row.kind for row in complaints if row.weight is Weight.OTHER))
    return others, Weight.OTHER if others else Weight.STORAGE
