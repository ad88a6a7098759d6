"""Rows that are not asked would have found nothing: each claim is held against the detects it stands for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corpus import CASES
from damage import damages
from images import (
    CONTEXT,
    NOW,
    Buffer,
    base,
    bat_entry,
    child,
    device,
    empty,
    fixed_disk,
    parent_disk,
    put,
    qemu,
    refooted,
    reheaded,
    seen,
    small,
    with_entry,
)
from matrix import mutants
from smfix.formats.cached_view import CachedView
from smfix.formats.problem import Context, found
from smfix.formats.vhd.build import sparse
from smfix.formats.vhd.image import VhdImage, inspect
from smfix.formats.vhd.problems.quiet import CLAIMS
from smfix.formats.vhd.problems.registry import PROBLEMS, diagnose
from smfix.formats.vhd.structs import BLOCK_SIZE
from smfix.values import SECTOR, InUse, Sound, Verdict

DISKS = (base, small, empty, child, parent_disk, qemu, fixed_disk)
HUNDRED = 100


def holds(image: VhdImage, context: Context) -> None:
    """No claim silences a row that has something to say, so the diagnosis is that of all rows."""
    every = tuple(found(problem, hit) for problem in PROBLEMS for hit in problem.detect(image, context))
    said = {finding.code for finding in every}
    for claim in CLAIMS:
        assert not (claim.holds(image, context) and claim.codes & said), claim.what
    assert diagnose(image, context).findings == (every if image.looks_like_vhd else ())


def test_every_claim_names_rows_and_each_row_is_named_once():
    named = [code for claim in CLAIMS for code in claim.codes]
    assert len(named) == len(set(named))
    assert set(named) <= {problem.code for problem in PROBLEMS}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.what)
def test_a_sound_disk_silences_the_rows(claim):
    assert claim.holds(seen(small()), CONTEXT)
    assert claim.holds(seen(empty()), CONTEXT)


@pytest.mark.parametrize("code", CASES)
def test_no_damage_of_the_corpus_is_passed_over(code):
    case = CASES[code]()
    holds(seen(case.raw, growable=case.growable), case.context)


@pytest.mark.parametrize("hundred", range(mutants.COUNT // HUNDRED))
def test_no_mutant_is_passed_over(hundred):
    for number in range(hundred * HUNDRED, (hundred + 1) * HUNDRED):
        state = InUse.READ_WRITE if number % 5 == 0 else InUse.NONE
        holds(inspect(CachedView(mutants.mutant(number))), replace(CONTEXT, in_use=state))


@settings(max_examples=400)
@given(st.sampled_from(DISKS), damages(), st.booleans(), st.sampled_from([*InUse]))
@example(base, [], False, InUse.NONE)
@example(fixed_disk, [], True, InUse.NONE)
def test_no_damage_is_passed_over(disk, hurts, growable, state):
    raw = disk() if growable else device(disk())
    for hurt in hurts:
        raw = hurt(raw)
    image = seen(raw, growable=growable)
    holds(image, Context(NOW, state))
    assert diagnose(inspect(CachedView(Buffer(raw, growable))), Context(NOW, state)) == diagnose(
        image, Context(NOW, state)
    )


def test_a_footer_that_the_image_is_not_read_by_silences_nothing():
    image = inspect(Buffer(small()), by=seen(base()).footer)
    assert not CLAIMS[0].holds(image, CONTEXT)
    holds(image, CONTEXT)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_full_blocks_in_any_order_are_sound(order):
    full = dict.fromkeys(range(4096), b"x" * 512)
    raw = sparse(3 << 21, bytes(range(16)), dict.fromkeys(order, full)).to_bytes()
    holds(seen(raw), CONTEXT)
    assert diagnose(seen(raw), CONTEXT).verdict is Verdict.VALID


def test_a_footer_from_the_future_and_an_old_one_are_asked_about():
    for changes in ({"timestamp": 0xFFFFFFFF}, {"creator_version": 1}, {"cookie": b"v_poison"}):
        image = seen(refooted(small(), **changes))
        assert isinstance(image.end, Sound)
        holds(image, CONTEXT)
        assert diagnose(image, CONTEXT).findings


@pytest.mark.parametrize("by", [16, 2048])
def test_an_entry_behind_the_gap_in_which_its_block_begins_is_seen(by):
    raw, at = small(), bat_entry(small(), 1) * SECTOR
    raw = put(raw[:-SECTOR] + bytes(4096 * SECTOR) + raw[-SECTOR:], at, b"\xff" * SECTOR + b"g" * BLOCK_SIZE)
    image = seen(with_entry(raw, 1, at // SECTOR + by))
    holds(image, CONTEXT)
    assert [finding.code for finding in diagnose(image, CONTEXT).findings] == ["VHD306"]


def test_a_sealed_header_of_smaller_blocks_is_seen():
    room_for_more = put(base(), 1536 + 16, b"\xff" * 496)  # in the BAT's one sector
    image = seen(reheaded(room_for_more, block_size=1 << 20, max_bat_size=8))
    holds(image, CONTEXT)
    assert [finding.code for finding in diagnose(image, CONTEXT).findings] == ["VHD212", "VHD310"]
