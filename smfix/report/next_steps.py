"""Suggest the next commands after a check: broken chains, repairs, explanations. Pure.

Images have absolute paths, so that the commands work from any folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from posixpath import dirname

from smfix.report.escape import command, printable
from smfix.report.layout import INDENT, counted
from smfix.values import CheckedImage, Disposition, Finding, Severity, Verdict

_SOUND = (Verdict.VALID, Verdict.IN_USE)


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


def suggest(images: Sequence[CheckedImage], repair: Callable[[Sequence[str]], str], few: int) -> str:
    """Name the broken chains, then a command for what can be repaired, and one for the rest; "" if all is sound.

    `repair` makes the command of its operands. For more than `few` images their folders are named.
    """
    lines = []
    for leaf, at in find_breaks(images):
        lines += [f"The chain of {printable(leaf.path.rpartition('/')[2])} breaks at", INDENT + printable(at.path)]
    bad = [image for image in images if image.verdict is Verdict.INVALID]
    can = [image.path for image in bad if _mendable(image)]
    if can:
        condition = ", if anything" if any(_mendable(image) and _may_stop(image) for image in bad) else ""
        named = can if len(can) <= few else list(dict.fromkeys(map(dirname, can)))
        lines += [f"What a repair would write{condition}, and who must agree to it:", INDENT + repair(named)]
    others = [image for image in bad if not _mendable(image)]
    if others:
        codes = sorted({one.code for image in others for one in _errors(image)})
        which = f" to {counted(len(others), 'image')}" if can else ""
        lines += [
            f"Nothing would be written{which}; what to do instead:",
            INDENT + command(["smfix", "explain", *codes]),
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
