"""The plan: whole or not at all, in the right order, pinned to the bytes it was made from, and bounded."""

from __future__ import annotations

import time
import tracemalloc
from array import array

import pytest

from guest import guest_data
from images import (
    CONTEXT,
    DISK_SIZE,
    MIB,
    NOW,
    UUID,
    Buffer,
    Holes,
    applied,
    base,
    bat_entry,
    codes,
    fixed_disk,
    lost_footer,
    planned,
    put,
    rebatted,
    refooted,
    repaired,
    small,
    with_entry,
)
from smfix.errors import Unreadable
from smfix.formats.problem import Context
from smfix.formats.vhd.build import sparse
from smfix.formats.vhd.problems.registry import PROBLEMS
from smfix.formats.vhd.structs import BLOCK_SIZE, UNUSED
from smfix.repair import plan as plan_module
from smfix.repair.fingerprint import fingerprint_matches
from smfix.repair.plan import lost_extents, plan
from smfix.values import Extent, Finding, InUse, NextStep, Reason, Resize, Severity, StepKind, Verdict, Write

EVERY = tuple(problem.code for problem in PROBLEMS)


# --------------------------------------------------------------------------- no plan


def test_a_valid_image_is_never_written():
    made = planned(base(), *EVERY)
    assert made.diagnosis.verdict is Verdict.VALID
    assert made.plan.edits == made.plan.fixes == made.plan.remaining == made.plan.lost == made.plan.needs == ()
    assert made.plan.refusal is None


def test_a_valid_image_with_warnings_is_not_tidied():
    made = planned(with_entry(base(), 2, UNUSED), *EVERY)
    assert codes(made) == ["VHD304"]
    assert made.plan.edits == ()
    assert made.plan.refusal is None
    assert [f.code for f in made.plan.remaining] == ["VHD304"]


@pytest.mark.parametrize(("raw", "why"), [(b"", "it is empty"), (b"text" * 1000, "none of its structures")])
def test_what_is_no_vhd_is_refused(raw, why):
    made = planned(raw, *EVERY)
    assert made.diagnosis.verdict is Verdict.NOT_A_VHD
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is Reason.NOT_A_VHD
    assert why in made.plan.refusal.message


def test_a_raw_disk_that_holds_a_vhd_is_none():
    assert planned(bytes(4 * MIB) + base(), *EVERY).plan.edits == ()


@pytest.mark.parametrize("size", [1 << 20, 1 << 63, (1 << 63) - 1])
def test_sizes_out_of_this_world(size):
    view = Holes(size, {0: base()[:4096]})
    made = plan(view, CONTEXT, frozenset(EVERY))
    assert view.asked < 200 * MIB
    if made.plan.edits:
        assert made.plan.refusal is None or made.plan.needs


def test_storage_that_fails_is_an_error():
    class Broken(Buffer):
        def read(self, extent: Extent) -> bytes:
            raise Unreadable("cannot read: Input/output error")

    with pytest.raises(Unreadable):
        plan(Broken(base()), CONTEXT)


# --------------------------------------------------------------------------- whole or not at all


def test_what_has_no_repair_keeps_everything_from_being_written():
    raw = lost_footer(refooted(base(), saved=9))
    made = planned(raw, *EVERY)
    assert codes(made) == ["VHD101", "VHD116"]
    assert made.plan.edits == ()
    assert made.plan.fixes == ()
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is Reason.NO_FIX
    assert made.plan.refusal.message.startswith("there is no proved repair for VHD101, VHD116")
    assert [f.code for f in made.plan.remaining] == ["VHD101", "VHD116"]


def test_a_refused_fix_says_why():
    made = planned(lost_footer(base()), growable=False)
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is Reason.NO_FIX


def test_what_consent_would_finish_shows_what_it_would_do():
    raw = lost_footer(with_entry(base(), 0, 1))
    made = planned(raw)
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is Reason.NEEDS_CONFIRM
    assert made.plan.refusal.message == "needs consent to VHD302"
    assert made.plan.needs == ("VHD302",)
    assert applied(raw, made.plan.edits) == base()
    assert planned(raw, "VHD302").plan.edits == made.plan.edits


def test_consent_to_something_else_is_none():
    made = planned(with_entry(base(), 0, 1), "VHD303", "VHD301")
    assert made.plan.needs == ("VHD302",)


def test_consent_to_one_of_two_is_not_enough():
    raw = refooted(with_entry(base(), 0, 1), where="backup", hidden=1)
    assert planned(raw).plan.needs == ("VHD105", "VHD302")
    assert planned(raw, "VHD105").plan.needs == ("VHD302",)
    assert repaired(raw, "VHD105", "VHD302") == base()


def test_consent_that_is_not_needed_changes_nothing():
    assert planned(lost_footer(base()), *EVERY).plan == planned(lost_footer(base())).plan


def test_a_loss_is_named_in_the_question():
    made = planned(lost_footer(small())[:-1024])
    assert made.plan.refusal is not None
    assert made.plan.refusal.message == "needs consent to VHD301 (2 guest sectors are lost)"


def test_only_clocks_and_chains_may_remain():
    late = refooted(lost_footer(base()) + base()[-512:], timestamp=0xFFFFFFF0)
    made = planned(lost_footer(late))
    assert [f.code for f in made.plan.remaining] == ["VHD902"]
    assert made.plan.refusal is None
    alone = planned(late)
    assert alone.plan.edits == ()
    assert alone.plan.refusal is not None
    assert alone.plan.refusal.reason is Reason.NO_FIX
    assert "VHD902" in alone.plan.refusal.message


@pytest.mark.parametrize(
    ("raw", "state", "reason"),
    [
        (lambda: lost_footer(base()), InUse.READ_WRITE, Reason.IN_USE),
        (lambda: rebatted(base(), checksum=9), InUse.READ_WRITE, Reason.IN_USE),
        (lambda: refooted(base(), cookie=b"v_poison"), InUse.NONE, Reason.SM_PENDING),
    ],
)
def test_what_is_somebody_elses_to_write_is_refused(raw, state, reason):
    made = planned(raw(), *EVERY, context=Context(NOW, state))
    assert made.plan.edits == made.plan.needs == ()
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is reason


@pytest.mark.parametrize("state", [InUse.READ_ONLY, InUse.UNKNOWN, InUse.NONE])
def test_who_only_reads_is_the_hosts_business(state):
    assert planned(lost_footer(base()), context=Context(NOW, state)).plan.refusal is None


# --------------------------------------------------------------------------- order


def test_the_file_is_extended_before_the_footer_is_placed():
    made = planned(lost_footer(small())[:-1024], "VHD301")
    assert [type(edit) for edit in made.plan.edits] == [Resize, Write]
    assert [f.code for f in made.plan.fixes] == ["VHD301", "VHD101"]


def test_everything_at_once():
    raw = base() + b"0" * 700
    raw = put(rebatted(with_entry(raw, 2, 1), reseal=False, bits=b"\xff", checksum=9), 0, bytes(512))
    made = planned(raw, *EVERY)
    # The footer that VHD103 puts at the end becomes the backup footer too: VHD104 is not left.
    assert {f.code for f in made.plan.fixes} == {"VHD102", "VHD103", "VHD302", "VHD401"}
    assert not made.plan.remaining
    whole = repaired(raw, *EVERY)
    assert whole[:512] == whole[-512:] == base()[:512]
    assert guest_data(whole) == guest_data(base())


def test_edits_are_made_once_each():
    raw = lost_footer(rebatted(with_entry(base(), 2, 1), checksum=9))
    edits = planned(raw, *EVERY).plan.edits
    assert len(set(edits)) == len(edits)
    spans = [edit.extent for edit in edits if isinstance(edit, Write)]
    assert not any(a.overlaps(b) for n, a in enumerate(spans) for b in spans[:n])


def test_the_rounds_are_bounded(monkeypatch):
    monkeypatch.setattr(plan_module, "ROUNDS", 1)
    made = planned(lost_footer(with_entry(base(), 0, 1)), *EVERY)
    assert made.plan.edits == ()
    assert made.plan.refusal is not None


def test_what_cannot_be_proved_is_not_done(monkeypatch):
    monkeypatch.setattr(plan_module, "prove", lambda *args, **kwargs: ["first", "second"])
    made = planned(lost_footer(base()))
    assert made.plan.edits == made.plan.needs == made.plan.fixes == ()
    assert made.plan.refusal is not None
    assert made.plan.refusal.reason is Reason.NO_FIX
    assert made.plan.refusal.message == "the repair could not be proved safe: first; second"
    asked = planned(with_entry(base(), 0, 1))
    assert asked.plan.needs == ()
    assert asked.plan.refusal is not None
    assert asked.plan.refusal.reason is Reason.NO_FIX
    hopeless = planned(refooted(base(), saved=9))
    assert hopeless.plan.refusal is not None
    assert "no proved repair for VHD116" in hopeless.plan.refusal.message
    assert hopeless.plan.refusal.next == (NextStep(StepKind.EXPLAIN, ("VHD116",)),)


# --------------------------------------------------------------------------- losses


def test_lost_extents_are_joined_and_in_order():
    def finding(*lost: list[int]) -> Finding:
        return Finding("VHD301", "", "", Severity.ERROR, planned(base()).diagnosis.verdict, facts={"lost": lost})  # type: ignore[arg-type]

    runs = [finding([4096, 512], [0, 512]), finding([512, 1024], [1024, 512]), finding([8192, 512], [8192, 1024])]
    assert lost_extents(runs) == (Extent(0, 1536), Extent(4096, 512), Extent(8192, 1024))
    assert lost_extents([]) == ()
    assert planned(base()).plan.lost_sectors == 0


# --------------------------------------------------------------------------- the fingerprint


def test_the_plan_is_pinned_to_what_was_read_and_what_is_edited():
    raw = lost_footer(put(base(), 540, b"\x09"))
    made = planned(raw, "VHD201")
    pinned = made.plan.fingerprint
    assert fingerprint_matches(Buffer(raw), pinned)
    for at in (0, 511, 512, 1535, 1536, 2048, 2600, len(raw) - 1, len(raw) - 512):
        changed = put(raw, at, bytes([raw[at] ^ 1]))
        assert not fingerprint_matches(Buffer(changed), pinned), at
    assert not fingerprint_matches(Buffer(raw + b"\0"), pinned)
    assert not fingerprint_matches(Buffer(raw[:-1]), pinned)


def test_guest_data_is_not_pinned():
    """A plan must not go stale because a child's data is read or copied."""
    raw = lost_footer(base())
    pinned = planned(raw).plan.fingerprint
    at = bat_entry(base(), 0) * 512 + 512 + 4096
    assert fingerprint_matches(Buffer(put(raw, at, b"changed")), pinned)
    assert sum(extent.length for extent, _ in pinned.digests) < 2 * MIB


def test_a_fixed_disk_is_left_alone():
    assert planned(fixed_disk(), *EVERY).plan.edits == ()


# --------------------------------------------------------------------------- speed


def million(*, footer: bool, blocks: int = 1_044_480) -> Holes:
    """A full disk of 2 TB, its blocks in an order that a busy disk has."""
    made = sparse(blocks * BLOCK_SIZE, UUID, {}, timestamp=1000)
    assert made.header is not None
    first, space = made.size // 512, made.header.block_space // 512
    order = array("I", range(blocks))
    for start in range(0, blocks, 64):  # runs of 64 blocks, written backwards
        order[start : start + 64] = array("I", reversed(order[start : start + 64]))
    entries = array("I", (first + n * space for n in order))
    entries.byteswap()
    pieces = {write.offset: write.data for write in made.writes}
    pieces[made.header.table_offset] = entries.tobytes()
    end = (first + blocks * space) * 512
    last = pieces.pop(made.size - 512)
    if footer:
        pieces[end] = last
    return Holes(end + (512 if footer else 0), pieces)


@pytest.mark.parametrize("footer", [True, False])
def test_a_million_blocks_are_diagnosed_in_a_moment(footer):
    """Aim: 0.5 s and 150 MiB. The limits here leave room for a slow machine that does other things."""
    view = million(footer=footer)
    started = time.process_time()
    made = plan(view, CONTEXT)
    spent = time.process_time() - started
    assert codes(made) == ([] if footer else ["VHD101"])
    assert spent < (3 if footer else 9)
    assert view.asked < 32 * MIB


def test_a_million_blocks_fit_into_memory():
    """Measured on an eighth of them, as measuring takes its time."""
    view = million(footer=False, blocks=1_044_480 // 8)
    tracemalloc.start()
    try:
        plan(view, CONTEXT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150 * MIB // 8


def test_a_large_bat_with_few_blocks():
    """16 TiB of guest disk, one block."""
    size = 16 << 40
    made = sparse(size, UUID, {5: {0: b"x" * 512}}, timestamp=1000)
    view = Holes(made.size - 512, {w.offset: w.data for w in made.writes[:-1]})
    started = time.process_time()
    answer = plan(view, CONTEXT)
    assert codes(answer) == ["VHD101"]
    assert answer.plan.refusal is None
    assert time.process_time() - started < 5
    assert size > DISK_SIZE


def test_what_the_operator_can_add_is_asked_for():
    refusal = planned(put(lost_footer(base()), 0, bytes(512))).plan.refusal
    assert refusal.reason is Reason.NO_FIX
    assert refusal.message.startswith("VHD106: not without the UUID (give it with --uuid) and the size (give it with")
    assert refusal.next == (NextStep(StepKind.EXPLAIN, ("VHD106",)),)
