"""Tar archives, honest and hostile, read as a stream."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smfix.smlog.inputs import tarball
from smfix.smlog.inputs.tarball import BLOCK, LONGEST_HEADER, NotTar, is_tar, members

LONG = "top/" + "x" * 150 + "/var/log/SMlog"


def archive(*files: tuple[str, bytes], form: int = tarfile.PAX_FORMAT, kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.type = len(data), 1_700_000_000, kind
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def contents(data: bytes, chunk: int = 1 << 20) -> list[tuple[str, int, bytes]]:
    stream = io.BytesIO(data)
    found = []
    for member, read in members(lambda count: stream.read(min(count, chunk))):
        text = b""
        while part := read(100):
            text += part
        assert read(100) == b""
        found.append((member.name, member.written, text))
    return found


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_regular_files(form, chunk):
    files = [("a/SMlog", b"one\n"), ("b", b""), (LONG, b"x" * 1025)]
    assert contents(archive(*files, form=form), chunk) == [(name, 1_700_000_000, data) for name, data in files]


def test_content_that_is_not_read_is_passed_over():
    stream = io.BytesIO(archive(("a", b"x" * 3000), ("b", b"y")))
    names = []
    for member, read in members(stream.read):
        names.append(member.name)
        read(5)
    assert names == ["a", "b"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_what_is_no_regular_file_is_passed_over(kind):
    assert contents(archive(("../../etc/passwd", b""), kind=kind)) == []


def test_names_in_other_characters():
    assert contents(archive(("ümlaut/SMlog", b"x")))[0][0] == "ümlaut/SMlog"
    raw = bytearray(archive(("a", b"x"), form=tarfile.GNU_FORMAT))
    raw[0:1] = b"\xff"
    raw[148:156] = b"%06o\0 " % (sum(raw[:148]) + 256 + sum(raw[156:512]))
    assert contents(bytes(raw))[0][0] == "\ufffd"


def header(size: bytes = b"00000000001\0", kind: bytes = b"0", name: bytes = b"a") -> bytes:
    raw = bytearray(name.ljust(100, b"\0") + b"0000644\0" * 3 + size + b"00000000000\0" + b" " * 8 + kind + b"\0" * 355)
    raw[257:263] = b"ustar\0"
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def test_sizes_beyond_octal():
    big = b"\x80" + (3).to_bytes(11, "big")
    assert contents(header(big) + b"abc".ljust(BLOCK, b"\0")) == [("a", 0, b"abc")]


def test_a_size_of_its_own_in_the_extended_header():
    pax = b"10 size=3\n"
    data = (
        header(b"%011o\0" % len(pax), b"x")
        + pax.ljust(BLOCK, b"\0")
        + header(b"00000000000\0")
        + b"abc".ljust(BLOCK, b"\0")
    )
    assert contents(data) == [("a", 0, b"abc")]
    nonsense = b"11 size=-3\n"
    data = header(b"%011o\0" % len(nonsense), b"x") + nonsense.ljust(BLOCK, b"\0") + header(b"00000000000\0")
    assert contents(data) == [("a", 0, b"")]
    whole = header(b"%011o\0" % len(pax), b"g") + pax.ljust(BLOCK, b"\0") + header(b"00000000000\0")
    assert contents(whole) == [("a", 0, b"")]


def test_an_archive_that_is_cut_off():
    assert contents(header(b"00000001000\0") + b"abc") == [("a", 0, b"abc")]
    assert contents(header()[:100]) == []
    assert contents(b"") == []


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"x" * BLOCK, "number"),
        (header()[:150] + b"1" + header()[151:], "checksum"),
        (header(b"%011o\0" % (LONGEST_HEADER + 1), b"x"), "too long"),
        (header(b"%011o\0" % 5, b"x") + b"hello".ljust(BLOCK, b"\0"), "damaged"),
        (header(b"%011o\0" % 5, b"x") + b"99 a=".ljust(BLOCK, b"\0"), "damaged"),
    ],
)
def test_hostile_headers(data, why):
    with pytest.raises(NotTar, match=why):
        contents(data)


def test_too_many_members(monkeypatch):
    monkeypatch.setattr(tarball, "MOST_MEMBERS", 3)
    with pytest.raises(NotTar, match="more than 3"):
        contents(archive(*((str(number), b"") for number in range(5))))


def test_what_is_a_tar():
    assert is_tar(archive(("a", b""))[:BLOCK])
    assert not is_tar(b"\0" * BLOCK)
    assert not is_tar(b"x" * BLOCK)
    assert not is_tar(b"short")


@given(st.binary(max_size=2000), st.integers(0, 700), st.integers(0, 255))
@settings(max_examples=200)
def test_any_bytes_end(data, at, value):
    mutated = bytearray(archive(("a", b"x" * 10), (LONG, b"y")))
    mutated[at] = value
    for text in (data, bytes(mutated), bytes(mutated) + data):
        try:
            contents(text)
        except NotTar:
            continue
