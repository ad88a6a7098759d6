"""Bug reports and hostile archives."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import tarfile
import zipfile
from datetime import UTC, datetime

import pytest
from test_smlog_xapi_db import DATABASE

from smfix.errors import Unreadable
from smfix.smlog.inputs import archive as archives
from smfix.smlog.inputs import tarball
from smfix.smlog.inputs.archive import Found
from smfix.smlog.inputs.discover import find_logs
from smfix.smlog.reader import read_logs
from smlog_text import PATH, SR, VDI, check, corrupted, failed, said

DUMP = f"primary footer invalid: invalid cookie\n{PATH} appears invalid; dumping metadata\n"
RUN = [check(), *failed(DUMP), corrupted()]
LOG = "".join(f"{line}\n" for line in [*RUN, *[said(f"x {number}") for number in range(50)]]).encode()
QUIET = b"".join(b"%s\n" % said(f"quiet {number}").encode() for number in range(50))


def tar_of(files: dict[str, bytes], mode: str = "w", kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.type = len(data), 1_628_600_000, kind
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2021, 8, 10, 12, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


REPORT = {
    "bug-report-20210810/var/log/SMlog": QUIET,
    "bug-report-20210810/var/log/SMlog.1": LOG[: len(LOG) // 2],
    "bug-report-20210810/var/log/SMlog.2.gz": gzip.compress(QUIET),
    "bug-report-20210810/xapi-db.xml": DATABASE.encode(),
    "bug-report-20210810/var/log/messages": LOG,
    "bug-report-20210810/inventory.xml": b"<x/>",
}


@pytest.fixture
def path_of(tmp_path):
    def write(data: bytes, name: str = "report") -> str:
        path = tmp_path / name
        path.write_bytes(data)
        return str(path)

    return write


def read(*names: str, year: int | None = None):
    return read_logs(list(names), tz="UTC", year=year, since=None, until=None)


PACKS = [tar_of, zip_of, *(lambda files, mode=mode: tar_of(files, mode) for mode in ("w:gz", "w:bz2", "w:xz"))]


@pytest.mark.parametrize("pack", PACKS)
def test_a_bug_report(path_of, pack):
    path = path_of(pack(REPORT))
    reading = read(path)
    (incident,) = reading.incidents
    assert (incident.vdi.text, incident.sr, incident.path, incident.count) == (VDI, SR, PATH, 1)
    assert incident.first_seen == datetime(2021, 8, 9, 12, tzinfo=UTC)
    assert {quote.file for quote in incident.evidence} == {f"{path}!bug-report-20210810/var/log/SMlog.1"}
    assert [name.rpartition("/")[2] for name in reading.files] == ["SMlog.2.gz", "SMlog.1", "SMlog"]
    assert incident.names.vdi == "base copy"
    assert incident.names.vms == ("web",)
    assert incident.around.sr_master == "xen1"
    assert not reading.notes


def test_digits_are_completed_by_the_database(path_of):
    log = f"{corrupted()}\n".encode()
    path = path_of(zip_of({"a/var/log/SMlog": log, "a/xapi-db.xml": DATABASE.encode()}))
    (incident,) = read(path).incidents
    assert (incident.vdi.text, incident.sr, incident.path) == (VDI, SR, None)


def test_reports_of_several_hosts_in_one_zip(path_of):
    other = LOG.replace(b"xen1", b"xen2").replace(b"1d99", b"3d99")
    one, two = tar_of({"r/var/log/SMlog": LOG}, "w:bz2"), zip_of({"r/var/log/SMlog": other})
    hosts = {"xen1.tar.bz2": one, "x/xen2.zip": two}
    reading = read(path_of(zip_of(hosts)))
    assert [(one.host, one.vdi.text[:4]) for one in reading.incidents] == [("xen1", "1d99"), ("xen2", "3d99")]
    assert all("!" in name for name in reading.files)


def test_raw_logs_of_two_hosts_are_not_mixed(path_of):
    raw = b"<7> 2012-05-15 00:18:35\t%s\n"
    first = raw % f"=== SR {SR}: gc ===".encode()
    second = raw % b"coalesce: EXCEPTION util.SMException, VHD *1d994938(1G) corrupted"
    archive = zip_of({"a/SMlog": first, "b/SMlog": second})
    (incident,) = read(path_of(archive)).incidents
    assert incident.sr is None


def test_archives_in_archives_have_an_end(path_of):
    data = zip_of({"SMlog": LOG})
    for _ in range(2):
        data = zip_of({"inner.zip": data})
    assert len(read(path_of(data)).incidents) == 1
    data = zip_of({"inner.zip": zip_of({"inner.zip": data})})
    with pytest.raises(Unreadable, match="no SMlog"):
        read(path_of(data))


def test_a_tar_with_another_name_in_a_gz_is_an_archive_too(path_of):
    assert len(read(path_of(gzip.compress(tar_of({"SMlog": LOG})), "SMlog.9.gz")).incidents) == 1


def test_an_archive_without_logs(path_of):
    for data in (tar_of({"x": b"y"}), zip_of({"x": b"y"}), zip_of({})):
        with pytest.raises(Unreadable, match="no SMlog in this archive"):
            read(path_of(data))


@pytest.mark.parametrize("name", ["../../../../etc/SMlog", "/etc/SMlog", "a/../../SMlog", "\x1b[31m/SMlog", "SMlog"])
def test_names_of_members_are_only_names(path_of, tmp_path, name):
    before = sorted(tmp_path.rglob("*"))
    path = path_of(tar_of({name: LOG}))
    reading = read(path)
    assert len(reading.incidents) == 1
    assert reading.files == (f"{path}!{name}",)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "report"])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_and_devices_are_not_followed(path_of, kind):
    with pytest.raises(Unreadable, match="no SMlog"):
        read(path_of(tar_of({"var/log/SMlog": b""}, kind=kind)))


def test_a_tar_that_is_cut_off_or_damaged(path_of):
    data = tar_of({"a/SMlog.1": LOG, "a/SMlog": QUIET})
    reading = read(path_of(data[:1024] + LOG[:-1].ljust(4096, b"x")[:2000]))
    assert len(reading.incidents) == 1
    broken = bytearray(data)
    second = data.index(b"a/SMlog\0")
    broken[second + 150] ^= 1
    reading = read(path_of(bytes(broken)))
    assert len(reading.incidents) == 1
    assert "checksum is wrong; what came before was read" in reading.notes[0]
    packed = bz2.compress(data)
    with pytest.raises(Unreadable):
        read(path_of(packed[: len(packed) // 2]))


def test_a_packed_member_that_is_damaged(path_of):
    damaged = gzip.compress(LOG)[:-20]
    reading = read(path_of(tar_of({"a/SMlog.1.gz": damaged, "a/SMlog": LOG})))
    assert len(reading.incidents) == 1
    assert "ends before its time" in reading.notes[0]
    reading = read(path_of(zip_of({"b.tar.gz": b"\x1f\x8b\x08garbage", "SMlog": LOG})))
    assert len(reading.incidents) == 1


def test_a_zip_bomb(path_of, monkeypatch):
    monkeypatch.setattr(archives, "MOST_TIMES", 3)
    reading = read(path_of(zip_of({"a/SMlog": LOG + b"\n" * (8 << 20), "b/SMlog": LOG})))
    assert len(reading.incidents) == 1
    assert any("times its size" in note for note in reading.notes)


def test_zips_that_are_none(path_of, monkeypatch):
    data = zip_of({"SMlog": LOG})
    for broken in (data[:40], data[:-30], data.replace(b"PK\x01\x02", b"PK\x01\x03")):
        reading = read(path_of(broken))
        assert reading.incidents == ()
        assert "not read" in reading.notes[0]
    monkeypatch.setattr(archives, "_MOST_ZIPPED", 3)
    reading = read(path_of(zip_of({f"{number}/SMlog": QUIET for number in range(5)})))
    assert "more than 3 members: not read" in reading.notes[0]


def test_members_that_cannot_be_unpacked(path_of):
    data = bytearray(zip_of({"SMlog": LOG, "x/SMlog": QUIET}))
    at = bytes(data).index(b"SMlog") + 30
    data[at : at + 8] = b"\xff" * 8
    reading = read(path_of(bytes(data)))
    assert any("cannot be unpacked" in note for note in reading.notes)
    encrypted = bytearray(zip_of({"SMlog": LOG, "x/SMlog": QUIET}))
    entry = bytes(encrypted).index(b"PK\x01\x02")
    encrypted[entry + 8] |= 1
    assert any("is encrypted" in note for note in read(path_of(bytes(encrypted))).notes)
    method = bytearray(zip_of({"SMlog": LOG, "b.zip": QUIET, "x/SMlog": QUIET}))
    at = 0
    for _ in range(2):
        at = bytes(method).index(b"PK\x01\x02", at + 1)
        method[at + 10] = 99
    notes = read(path_of(bytes(method))).notes
    assert sum("cannot be unpacked" in note for note in notes) == 2


def test_a_zip_of_no_day(path_of):
    data = bytearray(zip_of({"SMlog": LOG}))
    at = bytes(data).index(b"PK\x01\x02")
    data[at + 14 : at + 16] = b"\0\0"
    (incident,) = read(path_of(bytes(data)), year=2021).incidents
    assert incident.first_seen.year == 2021


def test_bounds_of_what_is_read(path_of, monkeypatch):
    monkeypatch.setattr(archives, "_MOST_LOGS", 2)
    many = {f"{number}/SMlog": QUIET for number in range(4)}
    for pack in (tar_of, zip_of):
        reading = read(path_of(pack(many)))
        assert len(reading.files) == 2
        assert "stopped at 2/SMlog" in reading.notes[0]
    monkeypatch.setattr(archives, "_MOST_SPOOLED", 100)
    assert "stopped at 0/SMlog" in read(path_of(tar_of(many))).notes[0]


def test_a_million_members_are_not_passed_over(path_of, monkeypatch):
    assert tarball.MOST_MEMBERS == 200_000
    monkeypatch.setattr(tarball, "MOST_MEMBERS", 2_000)
    header = tar_of({"x": b""})[:512]
    reading_of = path_of(header * 2_001)
    found = Found()
    with pytest.raises(Unreadable, match="no SMlog"):
        read(path_of(tar_of({"x": b""}), "other"))
    from smfix.smlog.inputs.discover import _file

    _file(reading_of, found)
    assert "more than 2000 members" in found.notes[0]


def test_a_database_that_is_none(path_of):
    reading = read(path_of(zip_of({"SMlog": LOG, "xapi-db.xml": b"<!DOCTYPE x><x/>"})))
    assert len(reading.incidents) == 1
    assert "document type; names are left out" in reading.notes[0]


def test_storage_that_fails(path_of, monkeypatch):
    path = path_of(tar_of({"SMlog": LOG}))
    real = os.preadv
    calls = []

    def failing(descriptor, buffers, offset):
        calls.append(offset)
        if len(calls) > 1:
            raise OSError(5, "Input/output error")
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(Unreadable, match="Input/output error"):
        read(path)


def test_readers_share_nothing(path_of):
    found = find_logs([path_of(LOG, "SMlog")], datetime.now(UTC))
    ((log,),) = found.sets
    one, two = log.open(), log.open()
    assert one.read(10) == LOG[:10]
    assert two.read(10) == LOG[:10]
    assert one.seek(-5, os.SEEK_CUR) == 5
    assert one.read(5) == LOG[5:10]
    assert (one.readable(), one.seekable()) == (True, True)
