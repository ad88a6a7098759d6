"""How far it is, in one line."""

from __future__ import annotations

import pytest

from smfix.report import progress

MIB = 1 << 20


@pytest.mark.parametrize(
    ("done", "total", "seconds", "told"),
    [
        (1, 4, 0.1, "reading: 25 %"),
        (3 * MIB, 0, 0.1, "reading: 3 MiB"),
        (200 * MIB, 400 * MIB, 2.0, "reading: 50 %, 100 MiB/s, 3 s to go"),
        (200 * MIB, 200 * MIB, 2.0, "reading: 100 %, 100 MiB/s"),
        (4000 * MIB, 0, 2.0, "reading: 4,000 MiB, 2,000 MiB/s"),
        (0, 100, 2.0, "reading: 0 %, 0 MiB/s"),
        (MIB, 1000 * MIB, 1.0, "reading: 0 %, 1 MiB/s, 17 min to go"),
        (MIB, 100000 * MIB, 1.0, "reading: 0 %, 1 MiB/s, 28 h to go"),
    ],
)
def test_bytes(done, total, seconds, told):
    assert progress.of_bytes("reading", done, total, seconds) == told


@pytest.mark.parametrize(
    ("done", "total", "seconds", "told"),
    [
        (0, 8, 5.0, "scanning: 0 of 8 images"),
        (1, 1, 0.5, "scanning: 1 of 1 image"),
        (1200, 10000, 2.0, "scanning: 1,200 of 10,000 images, 600/s, 15 s to go"),
        (2, 8, 10.0, "scanning: 2 of 8 images, 31 s to go"),
        (8, 8, 2.0, "scanning: 8 of 8 images, 4/s"),
    ],
)
def test_items(done, total, seconds, told):
    assert progress.of_items("scanning", done, total, seconds, "image") == told
