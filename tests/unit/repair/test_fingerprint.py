"""A plan is applied to the bytes it was made from, or not at all."""

from __future__ import annotations

import hashlib

from memory_image import MemoryImage
from smfix.repair.fingerprint import digest, fingerprint_matches
from smfix.values import Extent, Fingerprint

DATA = bytes(range(256)) * 4


def pinned(*extents: Extent) -> Fingerprint:
    return Fingerprint(len(DATA), tuple((at, digest(DATA[at.offset : at.end])) for at in extents))


def test_the_digest_is_sixteen_bytes_of_blake2b():
    assert digest(b"abc") == hashlib.blake2b(b"abc", digest_size=16).digest()


def test_the_same_bytes_match():
    assert fingerprint_matches(MemoryImage(DATA), pinned(Extent(0, 512), Extent(900, 200)))


def test_a_changed_byte_inside_does_not_match_and_outside_does():
    image = MemoryImage(DATA)
    image.data[600] ^= 1
    assert fingerprint_matches(image, pinned(Extent(0, 512)))
    assert not fingerprint_matches(image, pinned(Extent(0, 512), Extent(512, 512)))


def test_another_size_does_not_match():
    assert not fingerprint_matches(MemoryImage(DATA + b"\0"), pinned())
    assert not fingerprint_matches(MemoryImage(DATA[:-1]), pinned())
