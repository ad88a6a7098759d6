"""The picture as text, as ``smfix.fleet-report/1``, and as the values of a page. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from heapq import nsmallest
from itertools import islice
from typing import Any

from smfix.fleet.merge import LEFT, OTHER, REPAIRED, SOUND, Disk, FleetPicture, Host, Repository, Sum
from smfix.formats.vhd.problems.registry import row as problem
from smfix.report.jsondoc import Rows
from smfix.report.layout import LABEL, clipped, counted, moment, row, verbatim, wrapped
from smfix.report.page_model import Table

Document = dict[str, Any]
_SHOWN = 20
"""SRs, disks and hosts in trouble that text shows; a page shows ten times as many, JSON all."""
PAGE = 200
_NAMED = 8
_KINDS = {
    "coalesce-corrupted": "coalesce stopped at the disk: its check failed",
    "leaf-coalesce-corrupted": "leaf-coalesce stopped at the disk: its check failed",
    "footer-invalid": "vhd-util found the footer invalid",
    "backup-footer-invalid": "vhd-util found the backup footer invalid",
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
    """What a cause is: the finding's title, or what the log says where no disk was looked at."""
    if cause == OTHER:
        return "more causes than one report names"
    if not cause.startswith("VHD"):
        return _KINDS.get(cause, "a kind of report that a later smfix tells apart")
    known = problem(cause)
    return "a finding of a later smfix" if known is None else known.title


# --------------------------------------------------------------------------- text


def text(picture: FleetPicture) -> str:
    """For people: the sum, the causes, the SRs, what is left, and which hosts said nothing."""
    parts = [wrapped(sum_up(picture))]
    if picture.left_out:
        parts.append(wrapped(incomplete(picture)))
    parts += [part for part in (_causes(picture), _srs(picture), _left(picture), _trouble(picture)) if part]
    return "\n\n".join(parts)


def sum_up(picture: FleetPicture) -> str:
    """Everything in a few sentences."""
    total = picture.total
    told = [f"{counted(picture.hosts, 'host')}, {counted(picture.files, 'file')} read."]
    if picture.silent:
        told.append(f"{counted(picture.silent, 'host')} could not be reached or fully read.")
    if picture.images:
        told.append(f"{counted(picture.images, 'image')} looked at.")
    if not total.disks:
        return " ".join([*told, "No disk is in trouble."])
    told.append(f"{counted(total.disks, 'disk')} in trouble on {counted(picture.srs, 'SR')}: {_groups(total)}.")
    if total.since is not None:
        told.append(f"The first was reported {since(total)}.")
    return " ".join(told)


def incomplete(picture: FleetPicture) -> str:
    """What is missing from the sums."""
    return (
        f"This is not all: {counted(picture.left_out, 'disk or image', 'disks and images')} beyond the bounds of one "
        "report were left out. Make a report of each part of the fleet."
    )


def _groups(one: Sum) -> str:
    return f"{one.groups[REPAIRED]} repaired, {one.groups[SOUND]} already sound, {one.groups[LEFT]} left"


def words(counts: Counter[str]) -> str:
    """``refused 3, repaired 1``: the most first."""
    return ", ".join(
        f"{name} {number}" for name, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def _causes(picture: FleetPicture) -> str:
    lines = ["Causes (a disk that has several counts under each)"]
    for cause, one in picture.causes.items():
        where = f"{counted(one.srs, 'SR')}, {counted(one.hosts, 'host')}"
        told = f"{counted(one.disks, 'disk')} on {where}, since {since(one)}: {_groups(one)}"
        # A finding's code has the width of a label; a kind of the log has not.
        lines += [row(cause, told)] if len(cause) < LABEL else [verbatim(cause, ""), row("", told)]
        lines.append(row("", title(cause)))
    return _section(lines, len(picture.causes))


def since(one: Sum) -> str:
    """When the first of them was reported, to the second."""
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
    """The first of them, and how many more."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _left(picture: FleetPicture) -> str:
    left = picture.total.groups[LEFT]
    lines = ["Left to do"]
    for disk in islice(picture.each_disk(), min(left, _SHOWN)):  # those that are left come first
        lines += ["", verbatim("disk", disk.told.vdi or disk.told.path or "a disk without a name")]
        lines.append(row("SR", disk.told.sr or "not known"))
        why = f" ({disk.told.reason})" if disk.told.reason else ""
        lines.append(clipped("result", f"{disk.told.status}{why}: {disk.told.message}".removesuffix(": "), rows=4))
        lines.append(row("hosts", named(list(disk.views))))
    return _section(lines, left)


def _trouble(picture: FleetPicture) -> str:
    lines = [_SILENT]
    for host in islice(in_trouble(picture), _SHOWN):
        lines += [verbatim("host", host.name), clipped("why", "; ".join(host.trouble), rows=3)]
    return _section(lines, picture.silent)


def in_trouble(picture: FleetPicture) -> Iterator[Host]:
    """Hosts that could not be reached, or whose output could not be read, whole or in part."""
    return (host for host in picture.each_host() if host.trouble)


def _section(lines: list[str], there: int) -> str:
    """A heading with what is below it; empty where nothing is."""
    if not there:
        return ""
    more = ["", f"   and {there - _SHOWN:,} more in --json"] if there > _SHOWN else []
    return "\n".join([*lines, *more])


# --------------------------------------------------------------------------- JSON


def document(picture: FleetPicture, passed_over: int, notes: Sequence[str]) -> Document:
    """``smfix.fleet-report/1``, for :func:`smfix.report.jsondoc.pieces`."""
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
        "since": _time(one.since),
        "statuses": dict(one.statuses),
        "reasons": dict(one.reasons),
    }


def _disk(disk: Disk) -> Document:
    told = disk.told
    return {
        "vdi": told.vdi or None,
        "sr": told.sr,
        "path": told.path,
        "hosts": list(disk.views),
        "status": told.status,
        "reason": told.reason,
        "message": told.message or None,
        "codes": list(disk.codes),
        "kinds": list(disk.kinds),
        "first_seen": _time(disk.first),
        "last_seen": _time(disk.last),
        "undo": told.undo,
    }


def _time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


# --------------------------------------------------------------------------- a page


def tables(picture: FleetPicture) -> list[Table]:
    """What a page shows: causes, SRs, disks that are left, hosts in trouble, hosts; those that have rows."""
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
        ("SR", "hosts", *sums, "how they stand", "why"),
        (
            (
                one.sr or "not known",
                named(one.hosts),
                *_cells(one.sum),
                words(one.sum.statuses),
                words(one.sum.reasons),
            )
            for one in picture.each_sr()
        ),
        picture.rows,
    )
    yield _table(
        "left",
        "Left to do",
        ("disk", "SR", "hosts", "causes", "since", "how it stands"),
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
        ("host", *sums, "how they stand", "why"),
        ((host.name, *_cells(host.view), words(host.view.statuses), words(host.view.reasons)) for host in by_left),
        picture.hosts,
    )


def _table(name: str, heading: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]], there: int) -> Table:
    return Table(name, heading, columns, list(islice(rows, PAGE)), max(0, there - PAGE))


def _cells(one: Sum) -> tuple[str, ...]:
    groups = (str(one.groups[name]) for name in (REPAIRED, SOUND, LEFT))
    return (str(one.disks), *groups, "" if one.since is None else since(one))


def _left_row(disk: Disk) -> tuple[str, ...]:
    told = disk.told
    why = f" ({told.reason})" if told.reason else ""
    return (
        told.vdi or told.path or "a disk without a name",
        told.sr or "not known",
        named(list(disk.views)),
        ", ".join(disk.causes),
        "" if disk.first is None else moment(disk.first.replace(microsecond=0)),
        f"{told.status}{why}: {told.message}" if told.message else f"{told.status}{why}",
    )
