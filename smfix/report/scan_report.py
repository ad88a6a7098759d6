"""What `scan` found, as text and as ``smfix.scan/1``. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from posixpath import basename, dirname
from typing import Any

from smfix.report import exitcode
from smfix.report.escape import printable
from smfix.report.jsondoc import finding, names
from smfix.report.layout import counted, terminal, wrapped
from smfix.values import CheckedImage, InUse, ScannedImage, Severity, Verdict

TIES = {
    "parent-missing": "parent not here",
    "parent-ambiguous": "several images have the parent's UUID",
    "ring": "its chain is a ring",
}
_KIB, _MIB = 1 << 10, 1 << 20
_BELOW = " " * 5
"""Before what is said of an image: the indent of none of its children."""


def text(images: Sequence[ScannedImage]) -> str:
    """Folder by folder, chain by chain: one line an image, and a sum. As wide as the terminal where names allow."""
    parts: list[str] = []
    for folder, group in groupby(images, key=lambda image: dirname(image.checked.path)):
        here = list(group)
        lines = [f"{printable(folder)}: {counted(len(here), 'image')}"]
        lines += [line for image in here for line in _lines(image)]
        parts.append("\n".join(lines))
    parts.append(wrapped(sum_up(images)))
    return "\n\n".join(parts)


def _lines(image: ScannedImage) -> Iterator[str]:
    """The image's line, and one for each thing that is wrong with it."""
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
    """`head` and behind it the items, folded between them and not within."""
    lines = [head + items[0]]
    for item in items[1:]:
        if len(lines[-1]) + len(item) + 3 <= terminal():  # with a comma on either side
            lines[-1] += f", {item}"
        else:
            lines[-1] += ","
            lines.append(" " * len(head) + item)
    return "\n".join(lines)


def words(image: ScannedImage) -> list[str]:
    """What is known of an image in a few words each, the verdict first; capitals where it is not valid."""
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
    """`size` bytes in the largest of bytes, KiB and MiB, with one decimal where it is not whole."""
    if size < _KIB:
        return counted(size, "byte")
    unit, name = (_MIB, "MiB") if size >= _MIB else (_KIB, "KiB")
    return f"{size / unit:.1f} {name}" if size % unit else f"{size // unit} {name}"


def verdicts(images: Iterable[CheckedImage]) -> str:
    """How many images have which verdict."""
    counts = Counter(image.verdict for image in images)
    return ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict])


def sum_up(images: Sequence[ScannedImage]) -> str:
    """All images in one sentence."""
    told = verdicts(image.checked for image in images)
    askew = sum(image.aligned is False for image in images)
    deepest = max((image.depth + 1 for image in images), default=0)
    longest = f"the longest chain has {counted(deepest, 'image')}"
    return f"{counted(len(images), 'image')}: {told}; {askew} with a size that is not a multiple of 512; {longest}."


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
    """What the command ends with."""
    return int(exitcode.of_checks(image.checked for image in images))


def _image(image: ScannedImage) -> dict[str, Any]:
    checked = image.checked
    return {
        "path": checked.path,
        "vdi": image.vdi,
        "sr": image.sr,
        "verdict": checked.verdict.value,
        "size": checked.size,
        "end_of_data": checked.end_of_data,
        "virtual_size": image.virtual_size,
        "allocated": image.allocated,
        "aligned": image.aligned,
        "hidden": image.hidden,
        "in_use": image.in_use.value,
        "uuid": image.uuid,
        "parent_uuid": image.parent_uuid,
        "parent": image.parent,
        "depth": image.depth,
        "standing": image.standing,
        "findings": [finding(one) for one in checked.findings],
        "note": checked.note,
        "names": names(image.names),
    }
