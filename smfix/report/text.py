"""Render values as plain text: an incident is a card, a finding one sentence. Pure.

Every function returns lines joined by newlines, without one at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

from smfix.report.layout import INDENT, clipped, counted, moment, row, span, verbatim, wrapped
from smfix.report.next_steps import command_line, find_breaks
from smfix.report.summary import Left, overview, short, undo_line
from smfix.values import (
    CheckedImage,
    Edit,
    Finding,
    LogReading,
    Names,
    Outcome,
    Rescan,
    State,
    Status,
    TreatedImage,
    TreatedIncident,
    Write,
)

_EDITS_SHOWN = 6
_EVIDENCE_SHOWN = 4
_QUOTED = 4
"""Rows of one quoted line: a path of an SR takes two of 80 columns, and has text before and after it."""
_BESIDE = 3


def from_log(reading: LogReading, incidents: Sequence[TreatedIncident], rescans: Sequence[Rescan] = ()) -> str:
    """Return the whole report: the log, a card for each incident, the SRs that were scanned again, the sum."""
    parts = [log_read(reading)]
    parts += [incident(number, treated) for number, treated in enumerate(incidents, 1)]
    parts += [_rescanned(one) for one in rescans]
    parts.append(sum_up(incidents, within=reading.since is not None or reading.until is not None))
    left = [
        Left(number, short(one.vdi) or "a disk without a UUID", one.outcome)
        for number, one in enumerate(incidents, 1)
        if one.outcome is not None and one.left
    ]
    if len(incidents) > 1 and left:
        parts.append(overview(left))
    parts.append(undo_line(one.outcome for one in incidents if one.outcome is not None))
    return "\n\n".join(filter(None, parts))


def log_read(reading: LogReading) -> str:
    """Describe the log that was read, and the assumptions about its times."""
    lines = [f"Read {counted(reading.bytes, 'byte')} of {_files(reading.files)}."]
    if reading.first is not None or reading.last is not None:
        lines.append(f"It covers {span(reading.first, reading.last)}.")
    if reading.since is not None or reading.until is not None:
        since = "" if reading.since is None else f" from {moment(reading.since)}"
        until = "" if reading.until is None else f" up to {moment(reading.until)}"
        lines.append(f"Only reports{since}{until} count.")
    if reading.year_assumed:
        lines.append("It names no year: the latest that fits was assumed (--year says another).")
    if reading.zone_assumed:
        lines.append("It names no time zone: this machine's was assumed (--tz says another).")
    lines.extend(reading.notes)
    if not reading.bytes and reading.files:
        lines.insert(1, "There is nothing in it.")
    parts = [wrapped(line) for line in lines]
    if reading.beside:
        names = [path.rpartition("/")[2] for path in reading.beside[:_BESIDE]]
        more = ", ..." if len(reading.beside) > _BESIDE else ""
        were = f"{counted(len(reading.beside), 'older log')} beside it {'was' if len(reading.beside) == 1 else 'were'}"
        parts.append(wrapped(f"{were} not read ({', '.join(names)}{more}). To read all of them:"))
        parts += [INDENT + command_line(reading.wider)] if reading.wider else []
    return "\n".join(parts)


def set_aside(reading: LogReading) -> str:
    """Count the reports of trouble that name no damaged VHD, by reason."""
    total = sum(count for _, count in reading.noise)
    if not total:
        return "No report of trouble was set aside."
    were = "was set aside, because it names" if total == 1 else "were set aside, because they name"
    head = f"{counted(total, 'report')} of trouble {were} no damaged VHD:"
    return "\n".join([head, *(row(f"{count:,}", why) for why, count in reading.noise)])


def _files(files: Sequence[str]) -> str:
    if not files:
        return "no file"
    first = "standard input" if files[0] == "-" else files[0]
    return first if len(files) == 1 else f"{first} and {counted(len(files) - 1, 'more file')}"


# --------------------------------------------------------------------------- one card


def incident(number: int, treated: TreatedIncident) -> str:
    """Return one incident as a card."""
    reported = treated.incident
    lines = [f"{number}. {treated.vdi or 'a disk without a UUID'}  [{_headline(treated)}]"]
    if reported.host is not None:
        lines.append(row("host", reported.host))
    lines.append(row("SR", _with_name(treated.sr or "the log does not say", treated.names.sr)))
    lines += named(treated.names)
    if treated.path is not None:
        lines.append(verbatim("path", treated.path))
    runs = counted(reported.count, "report")
    lines.append(row("seen", f"{span(reported.first_seen, reported.last_seen)} ({runs})"))
    lines.append(row("kinds", ", ".join(reported.kinds)))
    if treated.outcome is None:
        lines.append(row("result", "resolved, as a later line of the log shows; nothing to do"))
    else:
        lines.append(_outcome(treated.outcome))
    # Findings and commands are read first, the evidence last.
    lines += _evidence(treated)
    return "\n".join(lines)


def _with_name(uuid: str, name: str | None) -> str:
    return uuid if name is None else f"{uuid} ({name})"


def named(names: Names, *, sr: bool = False) -> list[str]:
    """Return rows with the pool's names of the disk and its VMs; `sr`: and of the SR, if no other row has it."""
    lines = [row("SR", names.sr)] if sr and names.sr else []
    lines += [row("disk", names.vdi)] if names.vdi else []
    return lines + ([row("VMs" if len(names.vms) > 1 else "VM", ", ".join(names.vms))] if names.vms else [])


def _rescanned(value: Rescan) -> str:
    lines = [row("SR", f"{_with_name(value.sr, value.name)}: {value.message}")]
    if value.unhealthy_before is not None:
        after = "unknown" if value.unhealthy_after is None else str(value.unhealthy_after)
        lines.append(row("chains", f"unhealthy: {value.unhealthy_before} before the scan, {after} right after it"))
    return "\n".join(lines + [verbatim("next", command_line(step)) for step in value.next])


def _headline(treated: TreatedIncident) -> str:
    if treated.outcome is None:
        return treated.state.value
    reopened = treated.state is State.OPEN and treated.incident.state is State.RESOLVED
    status = treated.outcome.status.value
    return f"{status}; the log calls it resolved" if reopened else status


def _evidence(treated: TreatedIncident) -> list[str]:
    quoted = treated.incident.evidence
    shown = quoted if len(quoted) <= _EVIDENCE_SHOWN else quoted[: _EVIDENCE_SHOWN - 1] + quoted[-1:]
    lines = []
    for number, line in enumerate(shown):
        lines.append(verbatim("log" if number == 0 else "", f"{line.file}:{line.line}"))
        lines.append(clipped("", line.text.strip(), rows=_QUOTED))
    if len(shown) < len(quoted):
        lines.append(row("", f"({counted(len(quoted) - len(shown), 'more line')} in --json)"))
    return lines


def _outcome(value: Outcome) -> str:
    lines = [findings(value.findings)] if value.findings else []
    lines += plan(value)
    lines.append(row("result", result(value)))
    if value.lost_sectors:
        lost = counted(value.lost_sectors, "guest sector")
        lines.append(row("lost", f"{lost} of 512 bytes (which ones: see the findings)"))
    if value.remaining and value.remaining != value.findings:
        lines.append(findings(value.remaining, label="left"))
    if value.undo is not None:
        lines.append(verbatim("undo", command_line(value.undo)))
    lines += [verbatim("next" if number == 0 else "", command_line(step)) for number, step in enumerate(value.next)]
    return "\n".join(lines)


def result(value: Outcome) -> str:
    """Return the status, its reason, and the message; the message alone if it begins with the status."""
    words = value.status.value
    if value.reason is None and value.message.startswith(words):
        return value.message
    return f"{words}: {value.message}" if value.reason is None else f"{words} ({value.reason.value}): {value.message}"


def findings(values: Sequence[Finding], label: str = "found") -> str:
    """Return findings as rows: code, disposition, the severity unless it is an error, one sentence."""
    lines = []
    for number, value in enumerate(values):
        weight = "" if value.severity.value == "error" else f", {value.severity.value}"
        words = f"{value.code} ({value.disposition.value}{weight}) {value.message}"
        lines.append(row(label if number == 0 else "", words))
    return "\n".join(lines)


def plan(value: Outcome) -> list[str]:
    """Return the edits of the plan as rows; [] if there is nothing to write."""
    if value.plan is None or not value.plan.edits:
        return []
    edits = value.plan.edits
    is_done = value.status in (Status.REPAIRED, Status.PARTLY_REPAIRED)
    fixes = describe_fixes(value.plan.fixes, is_done=is_done)
    places = [edit_words(edit) for edit in edits[:_EDITS_SHOWN]]
    if len(edits) > _EDITS_SHOWN:
        places.append(f"and {counted(len(edits) - _EDITS_SHOWN, 'more edit')}")
    words = [*fixes[:-1], *(f"{fix}:" for fix in fixes[-1:]), *places]
    label = "wrote" if is_done else "plan"
    return [row(label if number == 0 else "", each) for number, each in enumerate(words)]


def describe_fixes(fixes: Sequence[Finding], *, is_done: bool) -> list[str]:
    """Describe the fixes, once for each code, in the words of the problem table."""
    from smfix.formats import registry  # imported here: most reports have no plan

    rows = [registry.row(code) for code in dict.fromkeys(fix.code for fix in fixes)]
    return [each.done if is_done else each.todo for each in rows if each is not None]


def edit_words(edit: Edit) -> str:
    """Describe one edit."""
    if isinstance(edit, Write):
        return f"{counted(len(edit.data), 'byte')} at offset {edit.offset:,}"
    return f"NUL from the old end to byte {edit.size:,}"


def sum_up(incidents: Sequence[TreatedIncident], *, within: bool = False) -> str:
    """Sum up all incidents in one line, each counted once: repaired, sound, resolved, left.

    `within`: only a part of the log's time was read.
    """
    if not incidents:
        return "No damaged disk is named in this log" + (" in that time." if within else ".")
    outcomes = [one.outcome for one in incidents if one.outcome is not None]
    repaired = sum(one.status is Status.REPAIRED for one in outcomes)
    partly = sum(one.status is Status.PARTLY_REPAIRED for one in outcomes)
    valid = sum(one.status is Status.VALID for one in outcomes)
    resolved = len(incidents) - len(outcomes)
    left = sum(one.left for one in incidents)
    words = [counted(len(incidents), "incident") + ":", f"{repaired} repaired,"]
    if valid:
        words.append(f"{valid} already sound,")
    if resolved:
        words.append(f"{resolved} already resolved,")
    words.append(f"{left} left{partly_of(left, partly)}.")
    return " ".join(words)


def partly_of(left: int, partly: int) -> str:
    """Return the addition to ``7 left``: how many of those were repaired in part."""
    if not partly:
        return ""
    return " (repaired in part)" if partly == left else f" ({partly} of them repaired in part)"


# --------------------------------------------------------------------------- check and repair


def check(images: Sequence[CheckedImage]) -> str:
    """Return a short card for each image."""
    chains: dict[str, list[str]] = {}
    for child in images:
        if child.parent is not None:
            chains.setdefault(child.parent, []).append(f"parent of {child.path}")
    for leaf, at in find_breaks(images):
        chains.setdefault(leaf.path, []).append(f"breaks at {at.path} ({at.verdict.value})")
    return "\n\n".join(_checked(image, chains.get(image.path, ())) for image in images)


def _checked(image: CheckedImage, chain: Sequence[str]) -> str:
    lines = [verbatim("path", image.path).strip().removeprefix("path").strip()]
    lines += named(image.names, sr=True)
    lines.append(row("verdict", image.said or image.verdict.value))
    lines += [verbatim("chain" if number == 0 else "", each) for number, each in enumerate(chain)]
    if image.size is not None:
        size = counted(image.size, "byte")
        tail = "" if image.end_of_data is None else f", data ends at {image.end_of_data:,}"
        lines.append(row("size", size + tail))
    if image.findings:
        lines.append(findings(image.findings))
    if image.note is not None:
        lines.append(row("note", image.note))
    lines += [verbatim("next" if number == 0 else "", command_line(step)) for number, step in enumerate(image.next)]
    return "\n".join(lines)


def repair(images: Sequence[TreatedImage], rescans: Sequence[Rescan] = ()) -> str:
    """Return a card for each TARGET, then the SRs that were scanned again."""
    cards = ("\n".join([_shown(image.path), *named(image.names, sr=True), _outcome(image.outcome)]) for image in images)
    left = [
        Left(number, short(image.path), image.outcome)
        for number, image in enumerate(images, 1)
        if not image.outcome.settled
    ]
    rest = [overview(left)] if len(images) > 1 and left else []
    back = undo_line(image.outcome for image in images)
    return "\n\n".join(filter(None, [*cards, *map(_rescanned, rescans), *rest, back]))


def proposal(path: str, outcome: Outcome) -> str:
    """Describe a plan before the question: the image, the findings, the edits."""
    found = [findings(outcome.findings)] if outcome.findings else [row("plan", outcome.message)]
    return "\n".join([_shown(path), *found, *plan(outcome)])


def repaired_now(path: str | None, outcome: Outcome) -> str:
    """Return the result of a repair that was just agreed to, and the undo command; `path` None: already shown."""
    lines = [row("result", result(outcome))]
    if outcome.undo is not None:
        lines.append(verbatim("undo", command_line(outcome.undo)))
    return "\n".join(([] if path is None else ["", _shown(path)]) + lines)


def _shown(path: str) -> str:
    return verbatim("", path).strip()
