"""Damage to the metadata of an image, drawn by hypothesis: what a crash, a tool or a bad sector does to it.

Guest data is never touched, so that what the guest reads after a repair can be held against the sound image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from images import (
    bat_entry,
    batmap_at,
    footer_of,
    header_of,
    lost_footer,
    put,
    rebatted,
    refooted,
    reheaded,
    with_entry,
)
from smfix.formats.vhd.image import MARK
from smfix.formats.vhd.structs import BLOCK_SIZE, UNUSED, Footer, geometry_for

Damage = Callable[[bytes], bytes]
FILL = st.sampled_from([b"\0", b"0", b"\xff", b"\xc7"])
TAILS = st.one_of(st.integers(1, 1536), st.sampled_from([2048, 4096, 70000]))


def _stale(footer: Footer, what: str) -> dict[str, Any]:
    """Fields of a footer that was right once, or of another disk."""
    if what in ("smaller", "larger"):
        size = footer.current_size + (BLOCK_SIZE if what == "larger" else -BLOCK_SIZE)
        size = min(max(size, BLOCK_SIZE), 1 << 40)
        return {"current_size": size, "geometry": geometry_for(size)}
    fields: dict[str, dict[str, Any]] = {
        "hidden": {"hidden": int(not footer.hidden)},
        "timestamp": {"timestamp": footer.timestamp ^ 1},
        "uuid": {"uuid": bytes(reversed(footer.uuid))},
        "type": {"type": 7 - footer.type if footer.type in (3, 4) else 4},
    }
    return fields[what]


STALE = st.sampled_from(["smaller", "larger", "hidden", "timestamp", "uuid", "type"])


@st.composite
def tail_damage(draw: st.DrawFn) -> Damage:
    """The end of the file: the footer gone, cut, overwritten, or something behind it."""
    kind = draw(st.sampled_from(["lost", "cut", "wiped", "mark", "behind", "twice", "preallocated"]))
    length, fill = draw(TAILS), draw(FILL)
    if kind == "lost":
        return lost_footer
    if kind == "cut":
        cut = draw(st.integers(1, 512))
        return lambda raw: raw[: max(0, len(raw) - cut)]
    if kind == "wiped":
        return lambda raw: put(raw, -512, fill * 512)
    if kind == "mark":
        return lambda raw: put(raw, -512, MARK)
    if kind == "behind":
        return lambda raw: raw + fill * length
    if kind == "twice":
        return lambda raw: raw + fill * length + raw[-512:]
    return lambda raw: lost_footer(raw) + bytes(length)


@st.composite
def footer_damage(draw: st.DrawFn) -> Damage:
    """The backup footer, or either footer's fields."""
    where = draw(st.sampled_from(["backup", "end"]))
    kind = draw(st.sampled_from(["wiped", "flipped", "stale"]))
    start = 0 if where == "backup" else -512
    if kind == "wiped":
        fill = draw(FILL) * 512
        return lambda raw: put(raw, start, fill)
    if kind == "flipped":
        byte, bit = draw(st.integers(0, 100)), draw(st.integers(0, 7))
        return lambda raw: _flip(raw, start + byte, bit)
    what = draw(STALE)
    return lambda raw: refooted(raw, where=where, **_stale(footer_of(raw), what))


def _flip(raw: bytes, at: int, bit: int) -> bytes:
    return put(raw, at, bytes([raw[at] ^ (1 << bit)]))


@st.composite
def header_damage(draw: st.DrawFn) -> Damage:
    """One field of the header, with and without its checksum; or all of it."""
    field = draw(
        st.sampled_from(["cookie", "data_offset", "table_offset", "version", "max_bat_size", "block_size", "reserved1"])
    )
    number = draw(st.sampled_from([0, 1, 3, 512, 513, 2048, 1 << 20, 1 << 21, 1 << 22, (1 << 32) - 1]))
    value: Any = b"cxspArse" if field == "cookie" else number
    if draw(st.booleans()):
        return lambda raw: reheaded(raw, **{field: value})
    if draw(st.integers(0, 9)) == 0:
        return lambda raw: put(raw, 512, bytes(1024))
    return lambda raw: put(raw, 512, replace(header_of(raw), **{field: value}).encode())


@st.composite
def bat_damage(draw: st.DrawFn) -> Damage:
    """One BAT entry."""
    block, other = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    kind = draw(st.sampled_from(["lost", "zero", "copied", "flipped", "shifted", "wild"]))
    by = draw(st.integers(-9, 9))
    bit = draw(st.integers(0, 31))

    def damage(raw: bytes) -> bytes:
        if header_of(raw).max_bat_size <= max(block, other) or header_of(raw).table_offset > 1 << 20:
            return raw
        entry = bat_entry(raw, block)
        new = {
            "lost": UNUSED,
            "zero": 0,
            "copied": bat_entry(raw, other),
            "flipped": entry ^ (1 << bit),
            "shifted": (entry + by) & UNUSED,
            "wild": 0x20000000 + by,
        }[kind]
        return with_entry(raw, block, new)

    return damage


@st.composite
def batmap_damage(draw: st.DrawFn) -> Damage:
    """The batmap's header or its bits, with and without its checksum."""
    reseal = draw(st.booleans())
    change: dict[str, Any] = draw(
        st.sampled_from(
            [
                {"cookie": b"tdbatmaq"},
                {"checksum": 5},
                {"version": 0x00010005},
                {"sectors": 0},
                {"sectors": 2},
                {"sectors": 0xFFFFFFFF},
                {"offset": 0},
                {"offset": 1 << 63},
                {"bits": b"\xf0"},
                {"bits": b"\x40"},
                {"bits": b"\0\xff"},
                {"marker": 1, "key_hash": b"k" * 65},
            ]
        )
    )

    def damage(raw: bytes) -> bytes:
        at = batmap_at(raw) if header_of(raw).table_offset < 1 << 20 else len(raw)
        if at + 1024 > len(raw) or raw[at : at + 8] != b"tdbatmap" or int.from_bytes(raw[at + 8 : at + 16]) > 1 << 20:
            return raw
        return rebatted(raw, reseal=reseal, **change)

    return damage


@st.composite
def cut(draw: st.DrawFn) -> Damage:
    """The file ends earlier."""
    where = draw(st.one_of(st.integers(0, 3000), st.integers(0, 1 << 23)))
    return lambda raw: raw[: max(1, len(raw) - where)]


@st.composite
def damages(draw: st.DrawFn, most: int = 3) -> list[Damage]:
    """One to `most` of them, in the order they are done; at most one shortens or lengthens the file, the last.

    What is done to the end of the file after it was cut would fall on guest data, and no tool could tell.
    """
    kinds = st.one_of(footer_damage(), header_damage(), bat_damage(), batmap_damage())
    made = draw(st.lists(kinds, max_size=most))
    if not made or (len(made) < most and draw(st.booleans())):
        made.append(draw(st.one_of(tail_damage(), cut())))
    return made
