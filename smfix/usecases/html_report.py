"""Draw the page of ``--html``, and save it to its file.

Theory. A page is drawn at the end, from the image as it is now and from the bytes in the repair's journal. So no code
of a repair knows of pages, and the picture before the repair is drawn from the bytes that an undo would write.
"""

from __future__ import annotations

import getpass
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from smfix import __version__
from smfix.errors import SmfixError, UsageError
from smfix.formats.base import Image, RawStructure
from smfix.formats.registry import format_of, inspect
from smfix.host import atomic_file
from smfix.host.image_file import open_image
from smfix.repair import journal_store
from smfix.repair.journal import Journal
from smfix.repair.overlay import Overlay
from smfix.report import html, page_model, scan_report, summary, text
from smfix.report.escape import command
from smfix.report.layout import counted
from smfix.report.page_model import Environment, FooterBytes, Portrait, Relative, Side
from smfix.sm.sr_types.registry import sr_type_of, target_at
from smfix.usecases import scan
from smfix.usecases.run_options import RunOptions
from smfix.values import (
    ByteView,
    CheckedImage,
    Extent,
    LogReading,
    Outcome,
    Refusal,
    Rescan,
    ScannedImage,
    Severity,
    Status,
    TreatedImage,
    TreatedIncident,
    Verdict,
)

MOST_IN_FOLDER = 20_000
"""Images of an SR's folder beyond which no chain is drawn: the page must not take longer than the repair."""
MOST_IN_CHAIN = 64
"""Images of a chain, or of a folder's forest, that are drawn."""
PAGE = atomic_file.FileKind("a page of smfix", html.is_ours, option="--html", example="report.html")
_NOW, _BEFORE, _AFTER = "as it is now", "before", "after"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A page to draw: its `file`; `include_data`: with bytes of the guest."""

    file: str
    include_data: bool = False


# --------------------------------------------------------------------------- the pages


def from_log(
    wanted: Wanted,
    reading: LogReading,
    incidents: Sequence[TreatedIncident],
    rescans: Sequence[Rescan],
    run_options: RunOptions,
) -> str:
    """Return the page of a `from-log`, as HTML: disks that are left come first."""
    incidents = sorted(incidents, key=lambda treated: not treated.left)
    cards = [page_model.of_incident(treated) for treated in incidents]
    lens = _Lens(run_options)
    portraits = [lens.treated(one.path, one.sr, one.outcome) for one in incidents[: page_model.CARDS]]
    page = html.Page("Storage log report", text.sum_up(incidents), cards, portraits, _environment(run_options), reading)
    _, undo_all = summary.undo_all(one.outcome for one in incidents if one.outcome is not None)
    return html.render(replace(page, rescans=rescans, include_data=wanted.include_data, undo_all=undo_all))


def repair(wanted: Wanted, images: Sequence[TreatedImage], rescans: Sequence[Rescan], run_options: RunOptions) -> str:
    """Return the page of a `repair`."""
    cards = [page_model.of_image(treated) for treated in images]
    lens = _Lens(run_options)
    portraits = [
        Portrait() if one.missing else lens.treated(one.path, one.sr, one.outcome) for one in images[: page_model.CARDS]
    ]
    repaired = sum(one.outcome.status is Status.REPAIRED for one in images)
    partly = sum(one.outcome.status is Status.PARTLY_REPAIRED for one in images)
    left = sum(not one.outcome.settled for one in images)
    summary_line = f"{counted(len(images), 'image')}: {repaired} repaired, {left} left{text.partly_of(left, partly)}."
    page = html.Page("Repair report", summary_line, cards, portraits, _environment(run_options))
    _, undo_all = summary.undo_all(one.outcome for one in images)
    return html.render(replace(page, rescans=rescans, include_data=wanted.include_data, undo_all=undo_all))


def check(wanted: Wanted, images: Sequence[CheckedImage], run_options: RunOptions) -> str:
    """Return the page of a `check`."""
    lens = _Lens(run_options)
    portraits = [lens.seen(one.path, one.verdict) for one in images[: page_model.CARDS]]
    summary_line = f"{counted(len(images), 'image')}: {scan_report.verdicts(images)}."
    cards = [page_model.of_check(image) for image in images]
    page = html.Page("Check report", summary_line, cards, portraits, _environment(run_options))
    return html.render(replace(page, include_data=wanted.include_data))


def of_scan(wanted: Wanted, images: Sequence[ScannedImage], run_options: RunOptions) -> str:
    """Return the page of a `scan`: the chains of every folder, and a card for each image that is not valid."""
    ill = [image for image in images if image.checked.verdict not in (Verdict.VALID, Verdict.IN_USE)]
    lens = _Lens(run_options)
    portraits = [lens.seen(one.checked.path, one.checked.verdict) for one in ill[: page_model.CARDS]]
    page = html.Page(
        "Scan report",
        scan_report.sum_up(images),
        [page_model.of_scan(one) for one in ill],
        portraits,
        _environment(run_options),
    )
    return html.render(replace(page, forest=_forest(images), include_data=wanted.include_data))


def of_fleet(title: str, sums: Sequence[str], tables: Sequence[page_model.Table], words: Sequence[str]) -> str:
    """Return the page of a fleet: sentences and tables."""
    return html.render_tables(title, sums, tables, _environment(RunOptions(words=tuple(words))))


def _forest(images: Sequence[ScannedImage]) -> list[tuple[str, list[Relative], int]]:
    folders: dict[str, list[ScannedImage]] = {}
    for image in images:
        folders.setdefault(os.path.dirname(image.checked.path), []).append(image)
    return [
        (folder, [_relative(one) for one in here[: page_model.CARDS]], max(0, len(here) - page_model.CARDS))
        for folder, here in folders.items()
    ]


def _environment(run_options: RunOptions) -> Environment:
    return Environment(
        version=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        host=platform.node(),
        user=_user(),
        command=command(["smfix", *run_options.words[1:]]),
        made=datetime.now(UTC).astimezone().replace(microsecond=0),
        vhd_util=shutil.which("vhd-util"),
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        return str(os.geteuid())


# --------------------------------------------------------------------------- one disk


@dataclass(frozen=True, slots=True)
class _Rewound:
    """`base` with the bytes in a journal, and the size in it: the image before the repair."""

    base: ByteView
    journal: Journal

    @property
    def size(self) -> int:
        return self.journal.old_size

    @property
    def growable(self) -> bool:
        return self.base.growable

    def read(self, extent: Extent) -> bytes:
        length = max(0, min(extent.end, self.size) - extent.offset)
        raw = bytearray(self.base.read(Extent(extent.offset, length)).ljust(length, b"\0"))
        for change in self.journal.changes:
            was = Extent(change.offset, len(change.before))
            if was.overlaps(extent):
                low, high = max(was.offset, extent.offset), min(was.end, extent.end)
                raw[low - extent.offset : high - extent.offset] = change.before[low - was.offset : high - was.offset]
        return bytes(raw)


class _Lens:
    """Draws portraits of disks; scans the folder of an SR once for all its disks."""

    def __init__(self, run_options: RunOptions) -> None:
        self._run_options = run_options
        self._folders: dict[str, dict[str, ScannedImage]] = {}

    def treated(self, path: str | None, sr: str | None, outcome: Outcome | None) -> Portrait:
        """Return the portrait of a disk that was treated, or a note if it cannot be drawn. Never raises.

        Only a disk that was inspected before is opened: the path of another one may be any text of a log.
        """
        if path is None or outcome is None or not (outcome.findings or outcome.status is Status.VALID):
            return Portrait()
        return self._portrait(path, sr, lambda view: self._views(view, outcome))

    def seen(self, path: str, verdict: Verdict) -> Portrait:
        """Return the portrait of a disk that was only inspected."""
        if verdict in (Verdict.UNREADABLE, Verdict.NOT_A_VHD):
            return Portrait()
        return self._portrait(path, None, lambda view: [(_NOW, view)])

    def _portrait(self, path: str, sr: str | None, views: Callable[[ByteView], list[tuple[str, ByteView]]]) -> Portrait:
        try:
            opened = open_image(target_at(path, sr))
            if isinstance(opened, Refusal):
                return Portrait(note=f"There is no picture of it: {opened.message}.")
            with opened:
                sides = _sides([(title, inspect(view)) for title, view in views(opened)])
        except SmfixError as error:
            return Portrait(note=f"There is no picture of it: {error}.")
        return Portrait(sides, self._chain(path))

    def _views(self, view: ByteView, outcome: Outcome) -> list[tuple[str, ByteView]]:
        """Return the views before and after a repair, or now and by the plan. Raises the errors of a journal."""
        if outcome.status in (Status.REPAIRED, Status.PARTLY_REPAIRED) and outcome.journal is not None:
            entry = journal_store.load(self._run_options.journals, outcome.journal)
            return [(_BEFORE, _Rewound(view, entry.journal)), (_AFTER, view)]
        edits = outcome.plan.edits if outcome.plan is not None else ()
        if edits and outcome.status is Status.WOULD_REPAIR:
            return [(_NOW, view), ("as the plan would leave it", Overlay(view, edits))]
        if edits and outcome.status is Status.REFUSED:
            return [(_NOW, view), ("as the repair would leave it, with consent", Overlay(view, edits))]
        return [(_NOW, view)]

    # ------------------------------------------------------------------ its chain

    def _chain(self, path: str) -> tuple[Relative, ...]:
        """Return the disk's ancestors, itself, and its children; empty if it has none, or its folder is unreadable."""
        if not sr_type_of(target_at(path)).has_folder:
            return ()
        here = self._folder(os.path.dirname(path))
        image = here.get(path)
        if image is None:
            return ()
        line = [image]
        while line[0].parent in here and len(line) < MOST_IN_CHAIN and here[line[0].parent] not in line:
            line.insert(0, here[line[0].parent])
        children = [one for one in here.values() if one.parent == path and one not in line]
        if len(line) + len(children) == 1 and image.standing == "root":
            return ()
        return tuple(_relative(one, is_self=one is image) for one in [*line, *children[:MOST_IN_CHAIN]])

    def _folder(self, folder: str) -> dict[str, ScannedImage]:
        if folder not in self._folders:
            self._folders[folder] = {image.checked.path: image for image in _scanned(folder)}
        return self._folders[folder]


def _scanned(folder: str) -> Iterable[ScannedImage]:
    try:
        if len(os.listdir(folder)) > MOST_IN_FOLDER:
            return ()
        return scan.scan([folder], ())
    except (SmfixError, OSError):
        return ()


def _relative(image: ScannedImage, *, is_self: bool = False) -> Relative:
    checked = image.checked
    codes = list(dict.fromkeys(one.code for one in checked.findings if one.severity is Severity.ERROR))
    words = ", ".join([*scan_report.words(image), *codes])
    is_damaged = checked.verdict not in (Verdict.VALID, Verdict.IN_USE) or image.standing in scan_report.TIES
    return Relative(os.path.basename(checked.path), image.depth, words, is_self, is_damaged)


def _sides(images: Sequence[tuple[str, Image]]) -> tuple[Side, ...]:
    """Each look as a side. A structure is shown if it is not sound, or differs between the looks."""
    looks = [[one for one in format_of(image).structures(image) if not one.is_of_guest] for _, image in images]
    odd = [
        not all(one.is_sound for one in same) or len({(one.title, one.raw) for one in same}) > 1
        for same in zip(*looks, strict=True)
    ]
    return tuple(
        Side(
            title,
            format_of(image).diagram(image),
            tuple(_shown(one) for one, is_odd in zip(here, odd, strict=True) if is_odd),
        )
        for (title, image), here in zip(images, looks, strict=True)
    )


def _shown(one: RawStructure) -> FooterBytes:
    return FooterBytes(one.title, one.offset, one.raw, one.is_metadata, one.like)


# --------------------------------------------------------------------------- the file


def wanted(file: str | None, *, include_data: bool) -> Wanted:
    """Return the page to draw. Raises UsageError, and WriteFailed, before any work is done."""
    if file is None:
        raise UsageError("--include-data says what a page shows: it needs --html")
    atomic_file.check(file, PAGE)
    return Wanted(file, include_data)


def save(page: Wanted, drawn: str) -> None:
    """Write the page to its file. Raises WriteFailed."""
    atomic_file.replace(page.file, drawn.encode("ascii"), PAGE)
