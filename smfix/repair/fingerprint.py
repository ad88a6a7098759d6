"""The bytes a plan was made from, pinned: is the image still the one that was diagnosed? Pure."""

from __future__ import annotations

import hashlib

from smfix.values import ByteView, Fingerprint


def digest(data: bytes) -> bytes:
    """What :class:`smfix.values.Fingerprint` keeps of an extent's bytes: 16 bytes of BLAKE2b."""
    return hashlib.blake2b(data, digest_size=16).digest()


def fingerprint_matches(view: ByteView, fingerprint: Fingerprint) -> bool:
    """True when `view` has the size, and in every extent the bytes, that the plan was made from.

    Raises :class:`smfix.errors.Unreadable` when the storage fails.
    """
    return view.size == fingerprint.size and all(
        digest(view.read(extent)) == expected for extent, expected in fingerprint.digests
    )
