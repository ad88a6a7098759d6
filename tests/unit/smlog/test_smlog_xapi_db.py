"""The database of a bug report: names, chains, who is in charge; and hostile ones."""

from __future__ import annotations

import pytest

from smfix.smlog.inputs import xapi_db
from smfix.smlog.inputs.xapi_db import NotADatabase, read_database
from smfix.values import Names, Surroundings
from smlog_text import SR, SR2, VDI, VDI2

LEAF = "3f994938-058e-102f-80dc-001ec95cb0b6"


def table(name: str, *rows: str) -> str:
    return f'<table name="{name}">' + "".join(f"<row {row}/>" for row in rows) + "</table>"


DATABASE = (
    '<?xml version="1.0" encoding="UTF-8"?><database><manifest><pair key="schema_major_vsn" value="5"/></manifest>'
    + table("pool", 'ref="P" master="H1"')
    + table("host", 'ref="H1" name__label="xen1"', 'ref="H2" name__label="xen2"')
    + table(
        "SR",
        f'ref="S1" uuid="{SR}" name__label="NFS &lt;1&gt;" type="nfs" shared="true"',
        f'ref="S2" uuid="{SR2}" name__label="Local" type="ext" shared="false"',
        'ref="S3" uuid="x" name__label="" type="lvm" shared="false"',
    )
    + table("PBD", 'ref="B1" host="H2" SR="S2" currently_attached="true"')
    + table(
        "VDI",
        f'ref="V1" uuid="{VDI.upper()}" name__label="base copy" SR="S1" sm_config="((\'vdi_type\' \'vhd\'))"',
        f'ref="V2" uuid="{VDI2}" name__label="" SR="S1" sm_config="((\'vhd-parent\' \'{VDI}\'))"',
        f'ref="V3" uuid="{LEAF}" name__label="disk" SR="S1" sm_config="((\'vhd-parent\' \'{VDI2}\'))"',
        'ref="V4" uuid="ffff0000-0000-0000-0000-000000000000" name__label="local" SR="S2" sm_config="()"',
    )
    + table("VBD", 'ref="W1" VM="M1" VDI="V3"', 'ref="W2" VM="M2" VDI="V3"', 'ref="W3" VM="M9" VDI="V3"')
    + table(
        "VM",
        'ref="M1" name__label="web" is_a_template="false" is_control_domain="false"',
        'ref="M2" name__label="dom0" is_a_template="false" is_control_domain="true"',
    )
    + table("task", 'ref="T" name__label="x"')
    + "</database>"
)


def database(text: str = DATABASE, chunk: int = 37):
    data = text.encode()
    return read_database(data[at : at + chunk] for at in range(0, len(data), chunk))


def test_names():
    found = database()
    assert found.names(VDI, SR) == Names("base copy", "NFS <1>", ("web",))
    assert found.names(VDI2, None) == Names(None, "NFS <1>", ("web",))
    assert found.names("nobody", None) == Names()
    assert found.names("nobody", "nowhere") == Names()


def test_where_a_disk_stands():
    found = database()
    assert found.surroundings(VDI, SR) == Surroundings("nfs", "xen1", None, (VDI2,))
    assert found.surroundings(VDI2, None) == Surroundings("nfs", "xen1", VDI, (LEAF,))
    local = "ffff0000-0000-0000-0000-000000000000"
    assert found.surroundings(local, SR2).sr_master == "xen2"
    assert found.surroundings(local, "x") == Surroundings("lvm")
    assert found.surroundings("nobody", None) == Surroundings()


def test_digits():
    found = database()
    assert found.starting_with(VDI[:8], SR) == [VDI]
    assert found.starting_with(VDI[:8], SR2) == []
    assert found.starting_with("", None) == [VDI, VDI2, LEAF, "ffff0000-0000-0000-0000-000000000000"]
    assert (found.sr_of(VDI), found.sr_of("nobody")) == (SR, None)


def test_a_chain_in_a_ring_ends():
    ring = table(
        "VDI",
        f'ref="V1" uuid="{VDI}" name__label="" SR="S" sm_config="((\'vhd-parent\' \'{VDI2}\'))"',
        f'ref="V2" uuid="{VDI2}" name__label="" SR="S" sm_config="((\'vhd-parent\' \'{VDI}\'))"',
    )
    assert database(f"<database>{ring}</database>").names(VDI, None) == Names()


def test_a_chain_of_any_length_ends(monkeypatch):
    monkeypatch.setattr(xapi_db, "_DEEPEST", 1)
    assert database().names(VDI, SR).vms == ()


def test_long_names_are_cut():
    text = DATABASE.replace("base copy", "n" * 9999)
    assert len(database(text).names(VDI, SR).vdi) == 256


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("no xml", "no XML"),
        ("<database>", "no XML"),
        ('<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><database>&b;</database>', "document type"),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd"><database/>', "document type"),
    ],
)
def test_hostile_documents(text, why):
    with pytest.raises(NotADatabase, match=why):
        database(text)


def test_too_many_rows(monkeypatch):
    monkeypatch.setattr(xapi_db, "_MOST_ROWS", 3)
    with pytest.raises(NotADatabase, match="more than 3 rows"):
        database()


def test_a_tag_without_end(monkeypatch):
    monkeypatch.setattr(xapi_db, "_LONGEST_TOKEN", 1000)
    with pytest.raises(NotADatabase, match="too long"):
        database('<database><table name="' + "x" * 5000)
