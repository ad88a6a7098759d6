"""The pool's database as a bug report holds it (``xapi-db.xml``): names, chains, masters.

Pure: the caller feeds the bytes. Only data that the incidents need is kept, row by row. The file is hostile like
any other: a document type (the way to entities that explode) ends the reading, and so do a row that is
too long or too many rows. Source: xapi's database/xml (``name__label`` for name_label, S-expressions
for sets and maps), the tables pool, host, SR, PBD, VDI, VBD and VM.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from smfix.smlog.patterns import pattern
from smfix.values import Names, Surroundings

_MOST_ROWS = 500_000
_LONGEST_TOKEN = 8 << 20  # bytes that no tag of an honest database needs
_LONGEST_NAME = 256  # characters
_MOST_VMS = 16
_DEEPEST = 64  # VDIs from a base copy down to a leaf

_KEPT = {
    "pool": ("master",),
    "host": ("name__label",),
    "SR": ("uuid", "name__label", "type", "shared"),
    "PBD": ("host", "SR", "currently_attached"),
    "VDI": ("uuid", "name__label", "SR", "sm_config"),
    "VBD": ("VM", "VDI"),
    "VM": ("name__label", "is_a_template", "is_control_domain"),
}
_PARENT = pattern(r"\('vhd-parent'\s+'(?P<vdi>[0-9a-fA-F-]{36})'\)")

Row = dict[str, str]


class NotADatabase(Exception):
    """The bytes are no database of xapi's, or one that no honest program writes."""


@dataclass(slots=True)
class Database:
    """The rows that matter, by table and reference."""

    tables: dict[str, dict[str, Row]] = field(default_factory=lambda: {name: {} for name in _KEPT})
    _vdis: dict[str, str] = field(default_factory=dict)
    _children: dict[str, list[str]] = field(default_factory=dict)
    _vms: dict[str, list[str]] = field(default_factory=dict)

    def index(self) -> None:
        """Find VDIs by their UUID, their children, the VMs that have them."""
        for ref, row in self.tables["VDI"].items():
            self._vdis[row["uuid"]] = ref
            if found := _PARENT.search(row["sm_config"]):
                self._children.setdefault(found["vdi"].lower(), []).append(row["uuid"])
        for row in self.tables["VBD"].values():
            self._vms.setdefault(row["VDI"], []).append(row["VM"])

    def starting_with(self, digits: str, sr: str | None) -> list[str]:
        """Return the UUIDs of the VDIs (on `sr`, if it is known) that start with `digits`."""
        return [
            uuid
            for uuid, ref in self._vdis.items()
            if uuid.startswith(digits) and (sr is None or self._sr_of(ref).get("uuid") == sr)
        ]

    def sr_of(self, vdi: str) -> str | None:
        """Return the UUID of the SR that `vdi` is on."""
        return self._sr_of(self._vdis.get(vdi, "")).get("uuid")

    def names(self, vdi: str, sr: str | None) -> Names:
        """Return the pool's name for `vdi`, its SR, and the VMs that read it."""
        ref = self._vdis.get(vdi, "")
        row = self._sr_row(sr) if sr else self._sr_of(ref)
        name = self.tables["VDI"].get(ref, {}).get("name__label")
        return Names(vdi=name or None, sr=row.get("name__label") or None, vms=self._vms_reading(vdi))

    def surroundings(self, vdi: str, sr: str | None) -> Surroundings:
        """Return the surroundings of `vdi`: its SR's type, the SR's master, its neighbours in the chain."""
        ref = self._vdis.get(vdi, "")
        row = self._sr_row(sr) if sr else self._sr_of(ref)
        parent = _PARENT.search(self.tables["VDI"].get(ref, {}).get("sm_config", ""))
        return Surroundings(
            sr_type=row.get("type"),
            sr_master=self._master(row),
            parent=parent["vdi"].lower() if parent else None,
            children=tuple(sorted(self._children.get(vdi, ()))),
        )

    def _sr_of(self, vdi_ref: str) -> Row:
        return self.tables["SR"].get(self.tables["VDI"].get(vdi_ref, {}).get("SR", ""), {})

    def _sr_row(self, uuid: str) -> Row:
        return next((row for row in self.tables["SR"].values() if row["uuid"] == uuid), {})

    def _master(self, sr: Row) -> str | None:
        """Return the master: the pool's coordinator of a shared SR, else the host that has it."""
        if sr.get("shared") == "true":
            ref = next((row["master"] for row in self.tables["pool"].values()), "")
        else:
            attached = [row for row in self.tables["PBD"].values() if self.tables["SR"].get(row["SR"]) is sr]
            ref = attached[0]["host"] if len(attached) == 1 else ""
        return self.tables["host"].get(ref, {}).get("name__label") or None

    def _vms_reading(self, vdi: str) -> tuple[str, ...]:
        """Return the VMs with a disk in the chains through `vdi`."""
        names: dict[str, None] = {}
        level, seen = [vdi], {vdi}
        for _ in range(_DEEPEST):
            for uuid in level:
                for vm in self._vms.get(self._vdis.get(uuid, ""), ()):
                    row = self.tables["VM"].get(vm, {})
                    if row and row["is_control_domain"] != "true" and len(names) < _MOST_VMS:
                        names[row["name__label"]] = None
            level = [child for uuid in level for child in self._children.get(uuid, ()) if child not in seen]
            seen.update(level)
            if not level:
                break
        return tuple(names)


def read_database(chunks: Iterable[bytes]) -> Database:
    """Return the database in `chunks`. Raises NotADatabase."""
    database = Database()
    parser = expat.ParserCreate()
    table = ""
    rows = fed = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal table, rows
        if tag == "table":
            table = attributes.get("name", "")
        elif tag == "row" and table in _KEPT:
            rows += 1
            if rows > _MOST_ROWS:
                raise NotADatabase(f"more than {_MOST_ROWS} rows")
            ref = attributes.get("ref") or attributes.get("_ref") or ""
            database.tables[table][ref] = {key: _bounded(key, attributes.get(key, "")) for key in _KEPT[table]}

    def doctype(*_: Any) -> None:
        raise NotADatabase("it declares a document type")

    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = doctype
    try:
        for chunk in chunks:
            parser.Parse(chunk, False)  # noqa: FBT003 - expat takes no keyword
            fed += len(chunk)
            if fed - parser.CurrentByteIndex > _LONGEST_TOKEN:
                raise NotADatabase("a tag is too long")
        parser.Parse(b"", True)  # noqa: FBT003
    except expat.ExpatError as error:
        raise NotADatabase(f"it is no XML: {error}") from error
    database.index()
    return database


def _bounded(key: str, value: str) -> str:
    if key == "sm_config":
        found = _PARENT.search(value[:4096])
        return found.group() if found else ""
    return value[:_LONGEST_NAME].lower() if key == "uuid" else value[:_LONGEST_NAME]
