"""Compressed logs: every kind, every chunk, every way to be damaged."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smfix.smlog.inputs import decompress as unpack
from smfix.smlog.inputs.decompress import Damaged, Unpacked, packing

TEXT = b"".join(b"Aug  9 12:00:00 xen1 SM: [%d] lock: released /var/lock/sm/x/sr\n" % number for number in range(5000))


def zstd_compress(data: bytes) -> bytes:
    try:
        from compression import zstd
    except ImportError:
        zstd = pytest.importorskip(
            "backports.zstd", reason="no zstd in this Python, and backports.zstd is not installed"
        )
    return zstd.compress(data)


PACKERS = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstd_compress}


@pytest.fixture(autouse=True, params=["isal", "zlib"])
def library(request, monkeypatch):
    """gzip is read by isal where that is installed; it has to make no difference."""
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
    else:
        pytest.importorskip("isal", reason="isal is not installed")


class Trickle:
    def __init__(self, data: bytes, size: int):
        self._stream, self._size = io.BytesIO(data), size

    def read(self, count: int) -> bytes:
        return self._stream.read(min(count, self._size))


def unpacked(data: bytes, size: int = 1 << 20, ask: int = 1 << 16) -> bytes:
    kind = packing(data)
    assert kind is not None
    stream = Unpacked(Trickle(data, size), kind)
    assert stream.readable()
    text = b""
    while part := stream.read(ask):
        text += part
    assert stream.read(ask) == b""
    return text


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("size", [1, 100, 1 << 20])
@pytest.mark.parametrize("ask", [11, 1 << 16])
def test_every_kind_in_any_pieces(kind, size, ask):
    text = TEXT[:3000] if size == 1 or ask == 11 else TEXT
    data = PACKERS[kind](text)
    assert packing(data) == kind
    assert unpacked(data, size, ask) == text


@pytest.mark.parametrize("kind", PACKERS)
def test_members_that_follow_each_other_are_one_text(kind):
    pack = PACKERS[kind]
    assert unpacked(pack(b"one\n") + pack(b"two\n")) == b"one\ntwo\n"


@pytest.mark.parametrize("kind", PACKERS)
def test_padding_and_garbage_behind_a_member(kind):
    data = PACKERS[kind](b"one\n")
    assert unpacked(data + b"\0" * 1000) == b"one\n"
    assert unpacked(data + b"garbage", 1) == b"one\n"


@pytest.mark.parametrize("kind", PACKERS)
def test_a_stream_that_is_cut_off_gives_what_it_has(kind):
    data = PACKERS[kind](TEXT)
    stream = Unpacked(io.BytesIO(data[: len(data) * 3 // 4]), kind)
    parts: list[bytes] = []
    with pytest.raises(Damaged, match="before its time"):
        parts.extend(iter(lambda: stream.read(1000), b""))
    assert TEXT.startswith(b"".join(parts))
    assert stream.read(10) == b""


@pytest.mark.parametrize("kind", PACKERS)
def test_damage_in_the_middle(kind):
    data = bytearray(PACKERS[kind](TEXT))
    for at in range(len(data) // 2, len(data) // 2 + 40):
        data[at] ^= 0xFF
    if kind == "zstd":  # carries no checksum unless asked to
        data = data[: len(data) // 2] + b"\xff" * 100
    with pytest.raises(Damaged):
        unpacked(bytes(data))


def test_a_magic_and_nothing_more():
    with pytest.raises(Damaged):
        unpacked(b"\x1f\x8b\x08 is no gzip")
    assert packing(b"plain text") is None
    assert Unpacked(io.BytesIO(b""), "gzip").read(10) == b""


def test_a_bomb_is_defused(monkeypatch):
    monkeypatch.setattr(unpack, "_FREELY", 1 << 20)
    bomb = gzip.compress(b"\0" * (64 << 20))
    stream = Unpacked(io.BytesIO(bomb), "gzip")
    given_out: list[int] = []
    with pytest.raises(Damaged, match="more than 400 times"):
        given_out.extend(map(len, iter(lambda: stream.read(1 << 16), b"")))
    assert sum(given_out) < 40 << 20


def test_a_log_that_packs_well_is_no_bomb(monkeypatch):
    monkeypatch.setattr(unpack, "_FREELY", 1 << 10)
    assert unpacked(gzip.compress(TEXT)) == TEXT


def test_a_kind_this_python_cannot_read(monkeypatch):
    for name in ("lzma", "compression", "compression.zstd", "backports", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    for kind in ("xz", "zstd"):
        with pytest.raises(Damaged, match="this Python cannot read that"):
            Unpacked(io.BytesIO(b"x"), kind)


@given(st.binary(max_size=300), st.sampled_from(["gzip", "bzip2", "xz"]), st.integers(0, 60))
@settings(max_examples=150)
def test_any_bytes_end(data, kind, at):
    packed = bytearray(PACKERS[kind](b"some text\n" * 20))
    packed[at % len(packed) :] = data
    for text in (bytes(packed), data):
        stream = Unpacked(io.BytesIO(text), kind)
        try:
            while stream.read(100):
                pass
        except Damaged:
            continue
