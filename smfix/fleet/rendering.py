"""The picture as text, as ``smfix.fleet-report/1``, and as the values of a page. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from smfix.fleet.picture import LEFT, REPAIRED, SOUND, Disk, Host, Picture, Sum
from smfix.problems.table import row as problem
from smfix.report.dossier import Table
from smfix.report.escape import printable
from smfix.report.layout import clipped, counted, moment, row, verbatim, wrapped

Document = dict[str, Any]
_SHOWN = 20
"""SRs, disks and hosts in trouble that text shows; a page shows ten times as many, JSON all."""
PAGE = 200
_NAMED = 8


def title(cause: str) -> str:
    """What a cause is: the finding's title; a kind of the log says itself what it is."""
    known = problem(cause) if cause.startswith("VHD") else None
    if known is not None:
        return known.title
    return (
        "a finding of a later smfix" if cause.startswith("VHD") else "as the log names it; no finding stands behind it"
    )


def hosts_of(picture: Picture, disk: Disk) -> list[str]:
    """The hosts that speak of the disk."""
    return [picture.hosts[number].name for number in disk.views]


# --------------------------------------------------------------------------- text


def text(picture: Picture) -> str:
    """For people: the sum, the causes, the SRs, what is left, and which hosts said nothing."""
    parts = [wrapped(sum_up(picture))]
    if picture.left_out:
        parts.append(wrapped(incomplete(picture)))
    parts += [part for part in (_causes(picture), _srs(picture), _left(picture), _trouble(picture)) if part]
    return "\n\n".join(parts)


def sum_up(picture: Picture) -> str:
    """Everything in a few sentences."""
    total = picture.total
    hosts = counted(len(picture.hosts), "host")
    silent = len(picture.in_trouble)
    told = [f"{hosts}, {counted(picture.files, 'file')} read"]
    told[0] += f", {silent} with trouble." if silent else "."
    if images := sum(picture.images_of.values()):
        told.append(f"{counted(images, 'image')} looked at.")
    if not total.disks:
        return " ".join([*told, "No disk is in trouble."])
    known = [sr for sr in picture.srs if sr is not None]
    told.append(f"{counted(total.disks, 'disk')} on {counted(len(known), 'SR')}: {_groups(total)}.")
    if total.since is not None:
        told.append(f"The first was reported {moment(total.since)}.")
    return " ".join(told)


def incomplete(picture: Picture) -> str:
    """What is missing from the sums."""
    return (
        f"This is not all: {counted(picture.left_out, 'disk or image', 'disks and images')} beyond the bounds of one "
        "report were left out. Make a report of each part of the fleet."
    )


def _groups(one: Sum) -> str:
    return f"{one.groups[REPAIRED]} repaired, {one.groups[SOUND]} sound by now, {one.groups[LEFT]} left"


def words(counts: Counter[str]) -> str:
    """``refused 3, repaired 1``: the most first."""
    return ", ".join(
        f"{name} {number}" for name, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def _causes(picture: Picture) -> str:
    lines = ["Causes (a disk with two counts for both)"]
    for cause, one in picture.causes.items():
        where = f"{counted(len(one.srs), 'SR')}, {counted(len(one.hosts), 'host')}"
        lines.append(row("", f"{cause}  {counted(one.disks, 'disk')} on {where}, since {since(one)}: {_groups(one)}"))
        lines.append(row("", f"  {title(cause)}"))
    return _section(lines, len(picture.causes))


def since(one: Sum) -> str:
    """When the first of them was reported."""
    return "nobody knows when" if one.since is None else moment(one.since)


def _srs(picture: Picture) -> str:
    lines = ["SRs"]
    for sr, one in list(picture.srs.items())[:_SHOWN]:
        lines.append(row("SR", sr or "not known"))
        lines.append(row("disks", f"{one.disks}: {words(one.statuses)}"))
        if one.reasons:
            lines.append(row("why", words(one.reasons)))
        lines.append(row("causes", words(one.causes) or "not known"))
        lines.append(row("since", since(one)))
        lines.append(row("hosts", named([picture.hosts[number].name for number in sorted(one.hosts)])))
    return _section(lines, len(picture.srs))


def named(names: Sequence[str]) -> str:
    """The first of them, and how many more."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _left(picture: Picture) -> str:
    left = [disk for disk in picture.disks if disk.group == LEFT]
    lines = ["Left to do"]
    for disk in left[:_SHOWN]:
        lines.append(verbatim("disk", disk.told.vdi or disk.told.path or "a disk without a name"))
        lines.append(row("SR", disk.told.sr or "not known"))
        why = f" ({disk.told.reason})" if disk.told.reason else ""
        lines.append(clipped("result", f"{disk.told.status}{why}: {disk.told.message}".removesuffix(": "), rows=3))
        lines.append(row("hosts", named(hosts_of(picture, disk))))
    return _section(lines, len(left))


def _trouble(picture: Picture) -> str:
    lines = ["Hosts that could not be reached, or said nothing that can be read"]
    lines += [
        clipped(printable(host.name[:40]), "; ".join(host.trouble), rows=2) for host in picture.in_trouble[:_SHOWN]
    ]
    return _section(lines, len(picture.in_trouble))


def _section(lines: list[str], there: int) -> str:
    """A heading with what is below it; empty where nothing is."""
    if not there:
        return ""
    more = [f"   and {there - _SHOWN:,} more in --json"] if there > _SHOWN else []
    return "\n".join([*lines, *more])


# --------------------------------------------------------------------------- JSON


def document(picture: Picture, passed_over: int, notes: Sequence[str]) -> Document:
    """``smfix.fleet-report/1``."""
    total = picture.total
    return {
        "schema": "smfix.fleet-report/1",
        "sources": {
            "files": picture.files,
            "unreadable": picture.unreadable,
            "passed_over": passed_over,
            "notes": list(notes),
        },
        "hosts": [_host(host, view) for host, view in zip(picture.hosts, picture.views, strict=True)],
        "srs": [
            {"sr": sr, "hosts": [picture.hosts[number].name for number in sorted(one.hosts)], **_sum(one)}
            for sr, one in picture.srs.items()
        ],
        "causes": [
            {"cause": cause, "title": title(cause), "srs": len(one.srs), "hosts": len(one.hosts), **_sum(one)}
            for cause, one in picture.causes.items()
        ],
        "disks": [_disk(picture, disk) for disk in picture.disks],
        "summary": {
            "hosts": len(picture.hosts),
            "hosts_in_trouble": len(picture.in_trouble),
            "srs": sum(sr is not None for sr in picture.srs),
            "images": sum(picture.images_of.values()),
            **_sum(total),
            "complete": not picture.left_out,
            "left_out": picture.left_out,
        },
        "exit": int(picture.exit),
    }


def _host(host: Host, view: Sum) -> Document:
    return {"host": host.name, "documents": dict(host.documents), "trouble": list(host.trouble), **_sum(view)}


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


def _disk(picture: Picture, disk: Disk) -> Document:
    told = disk.told
    return {
        "vdi": told.vdi or None,
        "sr": told.sr,
        "path": told.path,
        "hosts": hosts_of(picture, disk),
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


def tables(picture: Picture) -> list[Table]:
    """What a page shows: causes, SRs, disks that are left, hosts in trouble, hosts; those that have rows."""
    return [one for one in _tables(picture) if one.rows]


def _tables(picture: Picture) -> Iterator[Table]:
    sums = ("disks", "repaired", "sound", "left", "since")
    yield _table(
        "causes",
        "Causes",
        ("cause", "what it is", "SRs", "hosts", *sums),
        [
            (cause, title(cause), str(len(one.srs)), str(len(one.hosts)), *_cells(one))
            for cause, one in picture.causes.items()
        ],
    )
    yield _table(
        "srs",
        "SRs",
        ("SR", "hosts", *sums, "how they stand", "why"),
        [
            (
                sr or "not known",
                named([picture.hosts[number].name for number in sorted(one.hosts)]),
                *_cells(one),
                words(one.statuses),
                words(one.reasons),
            )
            for sr, one in picture.srs.items()
        ],
    )
    yield _table(
        "left",
        "Left to do",
        ("disk", "SR", "hosts", "causes", "since", "how it stands"),
        [_left_row(picture, disk) for disk in picture.disks if disk.group == LEFT],
    )
    yield _table(
        "trouble",
        "Hosts that could not be reached, or said nothing that can be read",
        ("host", "why"),
        [(host.name, "; ".join(host.trouble)) for host in picture.in_trouble],
    )
    by_left = sorted(zip(picture.hosts, picture.views, strict=True), key=lambda pair: -pair[1].groups[LEFT])
    yield _table(
        "hosts",
        "Hosts",
        ("host", *sums, "how they stand", "why"),
        [(host.name, *_cells(one), words(one.statuses), words(one.reasons)) for host, one in by_left],
    )


def _table(name: str, heading: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    return Table(name, heading, columns, rows[:PAGE], max(0, len(rows) - PAGE))


def _cells(one: Sum) -> tuple[str, ...]:
    groups = (str(one.groups[name]) for name in (REPAIRED, SOUND, LEFT))
    return (str(one.disks), *groups, "" if one.since is None else moment(one.since))


def _left_row(picture: Picture, disk: Disk) -> tuple[str, ...]:
    told = disk.told
    why = f" ({told.reason})" if told.reason else ""
    return (
        told.vdi or told.path or "a disk without a name",
        told.sr or "not known",
        named(hosts_of(picture, disk)),
        ", ".join(disk.causes),
        "" if disk.first is None else moment(disk.first),
        f"{told.status}{why}: {told.message}" if told.message else f"{told.status}{why}",
    )
