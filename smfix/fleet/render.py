"""Render the merged documents as text, as ``smfix.fleet-report/1``, and as the tables of a page. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from heapq import nsmallest
from itertools import islice
from typing import Any

from smfix.fleet.merge import LEFT, OTHER, REPAIRED, SOUND, Disk, FleetPicture, Host, Repository, Sum
from smfix.formats.registry import row as problem
from smfix.report.jsondoc import Rows, picked, plain
from smfix.report.layout import LABEL, clipped, counted, moment, row, verbatim, wrapped
from smfix.report.page_model import Table

Document = dict[str, Any]
_SHOWN = 20
"""SRs, disks and hosts in trouble in the text; a page shows :data:`PAGE` of each, JSON shows all."""
PAGE = 200
_NAMED = 8
_KINDS = {
    "coalesce-corrupted": "coalesce stopped at the disk: its check failed",
    "leaf-coalesce-corrupted": "leaf-coalesce stopped at the disk: its check failed",
    "footer-invalid": "vhd-util found the footer invalid",
    "backup-footer-invalid": "vhd-util found the backup footer invalid",
    "tool-crashed": "vhd-util crashed on the image",
    "footer-mismatch": "vhd-util found footer and backup footer to differ",
    "header-invalid": "vhd-util found the header invalid",
    "bat-invalid": "vhd-util found the BAT invalid",
    "batmap-invalid": "vhd-util found the batmap invalid",
    "scan-error": "a scan of the SR failed at the disk",
    "parent-missing": "the parent of the disk was not found",
    "clock": "vhd-util found a creation time in the future",
    "repair-failed": "vhd-util could not repair the disk",
    "open-failed": "the disk could not be opened",
}
_SILENT = "Hosts that could not be reached or fully read"


def title(cause: str) -> str:
    """Return the title of a cause: a finding's title, or the meaning of a kind if no image was inspected."""
    if cause == OTHER:
        return "more causes than one report names"
    if not cause.startswith("VHD"):
        return _KINDS.get(cause, "a kind of report that a later smfix tells apart")
    known = problem(cause)
    return "a finding of a later smfix" if known is None else known.title


# --------------------------------------------------------------------------- text


def text(picture: FleetPicture) -> str:
    """Return the text report: the sum, the causes, the SRs, the disks that are left, the hosts in trouble."""
    parts = [wrapped(sum_up(picture))]
    if picture.left_out:
        parts.append(wrapped(incomplete(picture)))
    parts += [part for part in (_causes(picture), _srs(picture), _left(picture), _trouble(picture)) if part]
    return "\n\n".join(parts)


def sum_up(picture: FleetPicture) -> str:
    """Return the sum of all documents in a few sentences."""
    total = picture.total
    sentences = [f"{counted(picture.hosts, 'host')}, {counted(picture.files, 'file')} read."]
    if picture.silent:
        sentences.append(f"{counted(picture.silent, 'host')} could not be reached or fully read.")
    if picture.images:
        sentences.append(f"{counted(picture.images, 'image')} looked at.")
    if not total.disks:
        return " ".join([*sentences, "No disk is in trouble."])
    sentences.append(f"{counted(total.disks, 'disk')} in trouble on {counted(picture.srs, 'SR')}: {_groups(total)}.")
    if total.since is not None:
        sentences.append(f"The first was reported {since(total)}.")
    return " ".join(sentences)


def incomplete(picture: FleetPicture) -> str:
    """Return the warning that the sums are not complete."""
    return (
        f"This is not all: {counted(picture.left_out, 'disk or image', 'disks and images')} beyond the bounds of one "
        "report were left out. Make a report of each part of the fleet."
    )


def _groups(one: Sum) -> str:
    return f"{one.groups[REPAIRED]} repaired, {one.groups[SOUND]} already sound, {one.groups[LEFT]} left"


def words(counts: Counter[str]) -> str:
    """Return ``refused 3, repaired 1``: the most frequent first."""
    return ", ".join(
        f"{name} {number}" for name, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def _causes(picture: FleetPicture) -> str:
    lines = ["Causes (a disk that has several counts under each)"]
    for cause, one in picture.causes.items():
        where = f"{counted(one.srs, 'SR')}, {counted(one.hosts, 'host')}"
        sums = f"{counted(one.disks, 'disk')} on {where}, since {since(one)}: {_groups(one)}"
        # A finding's code is narrower than a label, a kind from the log is not.
        lines += [row(cause, sums)] if len(cause) < LABEL else [verbatim(cause, ""), row("", sums)]
        lines.append(row("", title(cause)))
    return _section(lines, len(picture.causes))


def since(one: Sum) -> str:
    """Return when the first of the disks was reported, to the second."""
    return "an unknown time" if one.since is None else moment(one.since.replace(microsecond=0))


def _srs(picture: FleetPicture) -> str:
    lines = ["SRs"]
    for each in islice(picture.each_sr(), _SHOWN):
        one = each.sum
        lines += ["", row("SR", each.sr or "not known")]
        lines.append(row("disks", f"{one.disks}: {words(one.statuses)}"))
        if one.reasons:
            lines.append(row("why", words(one.reasons)))
        lines.append(row("causes", words(one.causes) or "not known"))
        lines.append(row("since", since(one)))
        lines.append(row("hosts", named(each.hosts)))
    return _section(lines, picture.rows)


def named(names: Sequence[str]) -> str:
    """Return the first of `names`, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _left(picture: FleetPicture) -> str:
    left = picture.total.groups[LEFT]
    lines = ["Left to do"]
    for disk in islice(picture.each_disk(), min(left, _SHOWN)):  # those that are left come first
        lines += ["", verbatim("disk", _name(disk)), row("SR", disk.best.sr or "not known")]
        lines += [clipped("result", _result(disk), rows=4), row("hosts", named(list(disk.views)))]
    return _section(lines, left)


def _name(disk: Disk) -> str:
    return disk.best.vdi or disk.best.path or "a disk without a name"


def _result(disk: Disk) -> str:
    best = disk.best
    return best.status + (f" ({best.reason})" if best.reason else "") + (f": {best.message}" if best.message else "")


def _trouble(picture: FleetPicture) -> str:
    lines = [_SILENT]
    for host in islice(in_trouble(picture), _SHOWN):
        lines += [verbatim("host", host.name), clipped("why", "; ".join(host.trouble), rows=3)]
    return _section(lines, picture.silent)


def in_trouble(picture: FleetPicture) -> Iterator[Host]:
    """Yield the hosts that could not be reached, or whose output could not be read completely."""
    return (host for host in picture.each_host() if host.trouble)


def _section(lines: list[str], there: int) -> str:
    """Join a heading and its rows, and say how many of the `there` rows are not shown; empty if there are none."""
    if not there:
        return ""
    more = ["", f"   and {there - _SHOWN:,} more in --json"] if there > _SHOWN else []
    return "\n".join([*lines, *more])


# --------------------------------------------------------------------------- JSON


def document(picture: FleetPicture, passed_over: int, notes: Sequence[str]) -> Document:
    """Return ``smfix.fleet-report/1``, for :func:`smfix.report.jsondoc.pieces`."""
    total = picture.total
    return {
        "schema": "smfix.fleet-report/1",
        "sources": {
            "files": picture.files,
            "unreadable": picture.unreadable,
            "passed_over": passed_over,
            "notes": list(notes),
        },
        "hosts": Rows(lambda: map(_host, picture.each_host())),
        "srs": Rows(lambda: map(_sr, picture.each_sr())),
        "causes": [
            {"cause": cause, "title": title(cause), "srs": one.srs, "hosts": one.hosts, **_sum(one)}
            for cause, one in picture.causes.items()
        ],
        "disks": Rows(lambda: map(_disk, picture.each_disk())),
        "summary": {
            "hosts": picture.hosts,
            "hosts_in_trouble": picture.silent,
            "srs": picture.srs,
            "images": picture.images,
            **_sum(total),
            "complete": not picture.left_out,
            "left_out": picture.left_out,
        },
        "exit": int(picture.exit),
    }


def _host(host: Host) -> Document:
    return {"host": host.name, "documents": dict(host.documents), "trouble": list(host.trouble), **_sum(host.view)}


def _sr(one: Repository) -> Document:
    return {"sr": one.sr, "hosts": one.hosts, **_sum(one.sum)}


def _sum(one: Sum) -> Document:
    return {
        "disks": one.disks,
        "repaired": one.groups[REPAIRED],
        "sound": one.groups[SOUND],
        "left": one.groups[LEFT],
        "since": plain(one.since),
        "statuses": dict(one.statuses),
        "reasons": dict(one.reasons),
    }


def _disk(disk: Disk) -> Document:
    best = disk.best
    return {
        "vdi": best.vdi or None,
        **picked(best, "sr path"),
        "hosts": list(disk.views),
        **picked(best, "status reason"),
        "message": best.message or None,
        **picked(disk, "codes kinds"),
        "first_seen": plain(disk.first),
        "last_seen": plain(disk.last),
        "undo": best.undo,
    }


# --------------------------------------------------------------------------- a page


def tables(picture: FleetPicture) -> list[Table]:
    """Return the tables of a page that have rows: causes, SRs, disks that are left, hosts in trouble, hosts."""
    return [one for one in _tables(picture) if one.rows]


def _tables(picture: FleetPicture) -> Iterator[Table]:
    sums = ("disks", "repaired", "sound", "left", "since")
    yield _table(
        "causes",
        "Causes",
        ("cause", "what it is", "SRs", "hosts", *sums),
        ((cause, title(cause), str(one.srs), str(one.hosts), *_cells(one)) for cause, one in picture.causes.items()),
        len(picture.causes),
    )
    yield _table(
        "srs",
        "SRs",
        ("SR", "hosts", *sums, "status", "why"),
        ((one.sr or "not known", named(one.hosts), *_cells(one.sum), *_words(one.sum)) for one in picture.each_sr()),
        picture.rows,
    )
    yield _table(
        "left",
        "Left to do",
        ("disk", "SR", "hosts", "causes", "since", "status"),
        map(_left_row, islice(picture.each_disk(), picture.total.groups[LEFT])),
        picture.total.groups[LEFT],
    )
    yield _table(
        "trouble",
        _SILENT,
        ("host", "why"),
        ((host.name, "; ".join(host.trouble)) for host in in_trouble(picture)),
        picture.silent,
    )
    by_left = nsmallest(PAGE, picture.each_host(), key=lambda host: -host.view.groups[LEFT])
    yield _table(
        "hosts",
        "Hosts",
        ("host", *sums, "status", "why"),
        ((host.name, *_cells(host.view), *_words(host.view)) for host in by_left),
        picture.hosts,
    )


def _table(name: str, heading: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]], there: int) -> Table:
    return Table(name, heading, columns, list(islice(rows, PAGE)), max(0, there - PAGE))


def _cells(one: Sum) -> tuple[str, ...]:
    groups = (str(one.groups[name]) for name in (REPAIRED, SOUND, LEFT))
    return (str(one.disks), *groups, "" if one.since is None else since(one))


def _words(one: Sum) -> tuple[str, str]:
    return words(one.statuses), words(one.reasons)


def _left_row(disk: Disk) -> tuple[str, ...]:
    first = "" if disk.first is None else moment(disk.first.replace(microsecond=0))
    hosts, causes = named(list(disk.views)), ", ".join(disk.causes)
    return _name(disk), disk.best.sr or "not known", hosts, causes, first, _result(disk)
