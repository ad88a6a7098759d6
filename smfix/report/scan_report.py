"""Render the images of `scan` as text and as ``smfix.scan/1``. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from posixpath import basename, dirname
from typing import Any

from smfix.report import exitcode
from smfix.report.escape import printable
from smfix.report.jsondoc import finding, picked
from smfix.report.layout import counted, terminal, wrapped
from smfix.values import CheckedImage, InUse, ScannedImage, Severity, Verdict

TIES = {
    "parent-missing": "parent not here",
    "parent-ambiguous": "several images have the parent's UUID",
    "ring": "its chain is a ring",
}
_KIB, _MIB = 1 << 10, 1 << 20
_BELOW = " " * 5
"""Indent of the findings below an image; no child of the image has it."""


def text(images: Sequence[ScannedImage]) -> str:
    """List folder by folder and chain by chain, one line an image, then the sum; folded to the terminal's width."""
    parts: list[str] = []
    for folder, group in groupby(images, key=lambda image: dirname(image.checked.path)):
        here = list(group)
        lines = [f"{printable(folder)}: {counted(len(here), 'image')}"]
        lines += [line for image in here for line in _lines(image)]
        parts.append("\n".join(lines))
    parts.append(wrapped(sum_up(images)))
    return "\n\n".join(parts)


def _lines(image: ScannedImage) -> Iterator[str]:
    """Yield the image's line, and one for each finding."""
    checked = image.checked
    indent = "  " + "  " * min(image.depth, 20)
    name = printable(basename(checked.path).removesuffix(".vhd"))
    if image.names.vdi:
        name += f" ({printable(image.names.vdi)})"
    yield _listed(f"{indent}{name}  ", words(image))
    wrong = [one for one in checked.findings if one.severity is not Severity.INFO]
    yield from (f"{indent}{_BELOW}{one.code} {printable(one.title)}" for one in wrong)
    if checked.verdict in (Verdict.UNREADABLE, Verdict.NOT_A_VHD) and checked.note:
        yield f"{indent}{_BELOW}{printable(checked.note)}"


def _listed(head: str, items: Sequence[str]) -> str:
    """Return `head` followed by the items; lines are folded between items only."""
    lines = [head + items[0]]
    for item in items[1:]:
        if len(lines[-1]) + len(item) + 3 <= terminal():  # with a comma on either side
            lines[-1] += f", {item}"
        else:
            lines[-1] += ","
            lines.append(" " * len(head) + item)
    return "\n".join(lines)


def words(image: ScannedImage) -> list[str]:
    """Describe an image in a few words each, the verdict first, in capitals unless it is valid."""
    checked = image.checked
    words = [checked.verdict.value.upper() if checked.verdict is not Verdict.VALID else "valid"]
    if image.hidden:
        words.append("hidden")
    if image.in_use in (InUse.READ_ONLY, InUse.READ_WRITE):
        words.append(f"open {image.in_use.value}")
    if image.virtual_size is not None:
        words.append(f"{amount(image.virtual_size)} disk")
    if checked.size is not None:
        words.append(f"{amount(checked.size)} file")
    if image.aligned is False:
        words.append("size not a multiple of 512")
    if image.standing in TIES:
        words.append(TIES[image.standing])
    return words


def amount(size: int) -> str:
    """Return `size` bytes in bytes, KiB or MiB, with one decimal if it is not whole."""
    if size < _KIB:
        return counted(size, "byte")
    unit, name = (_MIB, "MiB") if size >= _MIB else (_KIB, "KiB")
    return f"{size / unit:.1f} {name}" if size % unit else f"{size // unit} {name}"


def verdicts(images: Iterable[CheckedImage]) -> str:
    """Count the images of each verdict."""
    counts = Counter(image.verdict for image in images)
    return ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict])


def sum_up(images: Sequence[ScannedImage]) -> str:
    """Sum up all images in one sentence."""
    counts = verdicts(image.checked for image in images)
    askew = sum(image.aligned is False for image in images)
    deepest = max((image.depth + 1 for image in images), default=0)
    longest = f"the longest chain has {counted(deepest, 'image')}"
    return f"{counted(len(images), 'image')}: {counts}; {askew} with a size that is not a multiple of 512; {longest}."


def document(images: Sequence[ScannedImage]) -> dict[str, Any]:
    """``smfix.scan/1``."""
    return {
        "schema": "smfix.scan/1",
        "images": [_image(image) for image in images],
        "summary": {
            "images": len(images),
            "invalid": sum(image.checked.verdict is Verdict.INVALID for image in images),
            "unaligned": sum(image.aligned is False for image in images),
            "longest_chain": max((image.depth + 1 for image in images), default=0),
        },
        "exit": exit_code(images),
    }


def exit_code(images: Iterable[ScannedImage]) -> int:
    """Return the exit code of the command."""
    return int(exitcode.of_checks(image.checked for image in images))


def _image(image: ScannedImage) -> dict[str, Any]:
    return {
        **picked(image.checked, "path"),
        **picked(image, "vdi sr"),
        **picked(image.checked, "verdict size end_of_data"),
        **picked(image, "virtual_size allocated aligned hidden in_use uuid parent_uuid parent depth standing"),
        "findings": [finding(one) for one in image.checked.findings],
        **picked(image.checked, "note"),
        **picked(image, "names"),
    }
