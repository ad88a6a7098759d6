"""What the guest reads, by a reader that shares no line with smfix: plain `struct` over the whole bytes.

It asks in tapdisk's order: BAT, then the batmap (where it is sound), then the sector bitmap.
"""

from __future__ import annotations

import struct


class NotReadableError(Exception):
    """No footer, or no header: nothing opens this image."""


def _sum(raw: bytes, field: int) -> bool:
    total = sum(raw[:field]) + sum(raw[field + 4 :])
    return struct.unpack_from(">I", raw, field)[0] == ~total & 0xFFFFFFFF


def _footer(raw: bytes) -> bytes:
    for candidate in (raw[-512:], (raw[-511:] + b"\0"), raw[:512]):
        if len(candidate) == 512 and candidate[:8] == b"conectix" and _sum(candidate, 64):
            return candidate
    raise NotReadableError("no footer")


def _full(raw: bytes, footer: bytes, bat_end: int, size: int) -> bytes:
    """The batmap, empty where it is not sound or there is none."""
    creator, version = struct.unpack_from(">4sI", footer, 28)
    if creator[:3] != b"tap" or version < 0x00010002 or raw[bat_end : bat_end + 8] != b"tdbatmap":
        return b""
    offset, sectors, kind, wanted = struct.unpack_from(">QIII", raw, bat_end + 8)
    length = max(((size >> 24) + 511) // 512, 1) * 512
    bits = raw[offset : offset + length]
    total = sum(bits) if kind != 0x00010001 else sum(byte - 256 if byte > 127 else byte for byte in bits)
    if kind > 0x00010002 or len(bits) < length or sectors * 512 < length or ~total & 0xFFFFFFFF != wanted:
        return b""
    return bits


def guest_map(raw: bytes) -> dict[int, int]:
    """Guest sector -> byte in the image, of every written sector that lies inside the image."""
    footer = _footer(raw)
    header_at, size = struct.unpack_from(">Q", footer, 16)[0], struct.unpack_from(">Q", footer, 48)[0]
    header = raw[header_at : header_at + 1024]
    if header[:8] != b"cxsparse" or len(header) < 1024 or not _sum(header, 36):
        raise NotReadableError("no header")
    table, _, entries, block_size = struct.unpack_from(">QIII", header, 16)
    batmap = _full(raw, footer, table + (entries * 4 + 511) // 512 * 512, size)
    per_block = block_size // 512
    bitmap_size = (per_block // 8 + 511) // 512 * 512
    where: dict[int, int] = {}
    for block in range(-(-size // block_size)):
        entry = struct.unpack_from(">I", raw, table + 4 * block)[0]
        if entry == 0xFFFFFFFF:
            continue
        data = entry * 512 + bitmap_size
        bits = raw[entry * 512 : entry * 512 + per_block // 8]
        if block // 8 < len(batmap) and batmap[block // 8] >> (7 - block % 8) & 1:
            bits = b"\xff" * (per_block // 8)
        last = min(per_block, -(-size // 512) - block * per_block, (len(raw) - data) // 512)
        for at, byte in enumerate(bits[: -(-max(0, last) // 8)]):
            for bit in range(8) if byte else ():
                if byte >> (7 - bit) & 1 and at * 8 + bit < last:
                    where[block * per_block + at * 8 + bit] = data + (at * 8 + bit) * 512
    return where


def guest_data(raw: bytes) -> dict[int, bytes]:
    """Guest sector -> its 512 bytes, of every written sector."""
    return {sector: raw[at : at + 512] for sector, at in guest_map(raw).items()}
