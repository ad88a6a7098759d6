"""The digest of what a repair makes readable: of every byte that the repair leaves as it is, and of no other."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images import Buffer
from smfix.repair import reach_digest
from smfix.repair.journal import Change, Reach
from smfix.repair.reach_digest import digest_of, is_unchanged, joined, reach_of, untouched
from smfix.values import Extent, Placed, Resize

RUNS = st.lists(st.builds(Extent, st.integers(0, 60), st.integers(0, 20)), max_size=6)
RAW = bytes(range(200))


def covered(runs) -> set[int]:
    return {at for run in runs for at in range(run.offset, run.end)}


@given(RUNS)
def test_joined_runs_hold_the_same_bytes(runs):
    together = joined(runs)
    assert covered(together) == covered(runs)
    assert all(left.end < right.offset for left, right in pairwise(together))


@given(RUNS, RUNS, st.integers(0, 90))
def test_what_is_written_or_beyond_the_end_is_left_out(runs, written, size):
    apart = list(joined(written))
    left = untouched(runs, apart, size)
    assert covered(left) == {at for at in covered(runs) - covered(written) if at < size}
    assert all(run.length for run in left)


def placed(*runs: tuple[int, int]) -> list[Placed]:
    return [Placed(Extent(*run), Extent(run[0] * 2, run[1])) for run in runs]


def test_a_byte_that_changes_is_seen_only_where_it_counts():
    steps = (Change(10, b"old", b"new"), Resize(300))
    reach = reach_of(Buffer(RAW), placed((5, 20), (190, 40)), steps)
    assert (reach.total, reach.extents) == (27, (Extent(5, 5), Extent(13, 12), Extent(190, 10)))
    assert reach.guest == (Extent(10, 20), Extent(380, 40))
    for at in range(200):
        raw = bytearray(RAW)
        raw[at] ^= 1
        counts = 5 <= at < 10 or 13 <= at < 25 or at >= 190
        assert is_unchanged(Buffer(bytes(raw)), reach) is not counts
    assert is_unchanged(Buffer(RAW[:195]), reach) is False
    assert is_unchanged(Buffer(RAW + bytes(100)), reach) is True


def test_nothing_made_readable_is_always_the_same():
    reach = reach_of(Buffer(RAW), (), ())
    assert (reach.total, is_unchanged(Buffer(b""), reach)) == (0, True)


def test_what_is_too_large_or_unknown_is_not_told(monkeypatch):
    monkeypatch.setattr(reach_digest, "LIMIT", 19)
    reach = reach_of(Buffer(RAW), placed((5, 20)), ())
    assert reach == Reach(20, (Extent(10, 20),))
    assert is_unchanged(Buffer(RAW), reach) is None
    assert is_unchanged(Buffer(RAW), None) is None
    monkeypatch.setattr(reach_digest, "MOST_PLACES", 1)
    assert reach_of(Buffer(RAW), placed((0, 1), (2, 1)), ()).digest is None


def test_a_long_run_is_read_in_pieces():
    raw = bytes(3 << 20)
    assert digest_of(Buffer(raw), [Extent(0, len(raw))]) != digest_of(Buffer(raw[:-1] + b"x"), [Extent(0, len(raw))])


@pytest.mark.parametrize(
    ("total", "extents", "digest"),
    [(1, (Extent(0, 1),), None), (1, (), bytes(32)), (1, (Extent(0, 1),), bytes(31))],
)
def test_a_reach_that_does_not_hold_together(total, extents, digest):
    with pytest.raises(ValueError, match="digest"):
        Reach(total, (), extents, digest)
