"""Render the commands to type next, join those that can be one, and suggest some after a check. Pure.

Images have absolute paths, so that the commands work from any folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from posixpath import dirname

from smfix.report.escape import command, printable
from smfix.report.layout import INDENT, counted
from smfix.values import CheckedImage, Disposition, Finding, NextStep, Severity, StepKind, Verdict

_WORDS = {
    StepKind.REPAIR: ("smfix", "repair"),
    StepKind.CHECK: ("smfix", "check"),
    StepKind.UNDO: ("smfix", "undo"),
    StepKind.EXPLAIN: ("smfix", "explain"),
    StepKind.READ_LOGS: ("smfix", "from-log"),
    StepKind.PRUNE: ("smfix", "journal", "prune"),
    StepKind.SCAN_SR: ("xe", "sr-scan", "uuid={}"),
    StepKind.FIND_SR: ("xe", "pbd-list", "sr-uuid={}", "params=host-uuid,currently-attached"),
    StepKind.FIND_VDI: ("xe", "vdi-list", "uuid={}"),
    StepKind.SHOW_SM_CONFIG: ("xe", "vdi-param-get", "uuid={}", "param-name=sm-config"),
    StepKind.SHOW_VIRTUAL_SIZE: ("xe", "vdi-param-get", "uuid={}", "param-name=virtual-size"),
    StepKind.END_PAUSE: ("xe", "vdi-param-remove", "uuid={}", "param-name=sm-config", "param-key=paused"),
    StepKind.SET_ASIDE: ("mv",),
    StepKind.FIND_LINKS: ("find",),
}
"""The words of each command. ``{}`` takes the argument; without it the arguments follow the words."""
_JOINED = (StepKind.REPAIR, StepKind.CHECK, StepKind.EXPLAIN)  # several operands in one command
_SOUND = (Verdict.VALID, Verdict.IN_USE)


def command_line(step: NextStep) -> str:
    """Return the complete command of a step, quoted for a shell."""
    if step.kind is StepKind.TEXT:
        return step.args[0]
    if step.kind is StepKind.FIND_VDI_BY_DIGITS:
        return _find_by_digits(*step.args)
    words = _WORDS[step.kind]
    if any("{}" in word for word in words):
        return command(word.format(*step.args) for word in words)
    return command((*words, *step.args, *step.options))


def _find_by_digits(digits: str, sr: str | None = None) -> str:
    """Return the command that finds a VDI by its first digits: with grep, because `xe` matches whole UUIDs only."""
    within = () if sr is None else (f"sr-uuid={sr}",)
    listed = command(("xe", "vdi-list", *within, "params=uuid,sr-uuid,name-label"))
    return f"{listed} | {command(('grep', '-A2', f': {digits}'))}" if digits else listed


def joined(steps: Iterable[NextStep]) -> list[NextStep]:
    """Return the steps, each once; those that differ in their operands only are one."""
    operands: dict[tuple[StepKind, tuple[str, ...], tuple[str, ...]], dict[str, None]] = {}
    for step in steps:
        alone = () if _takes_more(step) else step.args
        operands.setdefault((step.kind, alone, step.options), {}).update(dict.fromkeys(step.args))
    return [NextStep(kind, alone or tuple(words), options) for (kind, alone, options), words in operands.items()]


def can_join(one: NextStep, other: NextStep) -> bool:
    """Return True if the steps are equal, or commands of one kind that takes several operands."""
    return one == other or (one.kind is other.kind and _takes_more(one) and _takes_more(other))


def _takes_more(step: NextStep) -> bool:
    """Return True if the command takes several operands; False if only bash could read them in one line."""
    return step.kind in _JOINED and all(arg.isprintable() for arg in step.args)


def undo_loop(steps: Sequence[NextStep]) -> str:
    """Return one command line that undoes the journals of several steps, in reverse; "" if their options differ."""
    if len({step.options for step in steps}) != 1:
        return ""
    ids = " ".join(step.args[0] for step in reversed(steps))
    rest = command(steps[0].options)
    return f'for id in {ids}; do {command(_WORDS[StepKind.UNDO])} "$id"{rest and " "}{rest}; done'


def find_breaks(images: Sequence[CheckedImage]) -> list[tuple[CheckedImage, CheckedImage]]:
    """Return each leaf whose chain was walked, with the nearest of its parents that is not sound."""
    by_path = {image.path: image for image in images}
    parents = {image.parent for image in images}
    found = []
    for leaf in images:
        at, seen = leaf, {leaf.path}
        while leaf.path not in parents and at.parent in by_path and at.parent not in seen:
            at = by_path[at.parent]
            seen.add(at.path)
            if at.verdict not in _SOUND:
                found.append((leaf, at))
                break
    return found


def suggest(images: Sequence[CheckedImage], repair: Callable[[Sequence[str]], NextStep], few: int) -> str:
    """Name the broken chains, then a command for what can be repaired, and one for the rest; "" if all is sound.

    `repair` makes the step for its operands. For more than `few` images their folders are named.
    """
    lines = []
    for leaf, at in find_breaks(images):
        lines += [f"The chain of {printable(leaf.path.rpartition('/')[2])} breaks at", INDENT + printable(at.path)]
    bad = [image for image in images if image.verdict is Verdict.INVALID]
    can = [image.path for image in bad if _mendable(image)]
    if can:
        condition = ", if anything" if any(_mendable(image) and _may_stop(image) for image in bad) else ""
        named = can if len(can) <= few else list(dict.fromkeys(map(dirname, can)))
        lines += [
            f"What a repair would write{condition}, and who must agree to it:",
            INDENT + command_line(repair(named)),
        ]
    others = [image for image in bad if not _mendable(image)]
    if others:
        codes = sorted({one.code for image in others for one in _errors(image)})
        which = f" to {counted(len(others), 'image')}" if can else ""
        lines += [
            f"Nothing would be written{which}; what to do instead:",
            INDENT + command_line(NextStep(StepKind.EXPLAIN, tuple(codes))),
        ]
    return "\n".join(lines)


def _mendable(image: CheckedImage) -> bool:
    """Return True if any error has a repair."""
    return any(one.disposition is not Disposition.REPORT for one in _errors(image))


def _may_stop(image: CheckedImage) -> bool:
    """Return True if an error without a repair prevents the plan (contract: VHD5xx and VHD9xx do not)."""
    return any(one.disposition is Disposition.REPORT and one.code < "VHD5" for one in _errors(image))


def _errors(image: CheckedImage) -> list[Finding]:
    return [one for one in image.findings if one.severity is Severity.ERROR]
