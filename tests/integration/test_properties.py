"""Properties of the core that hold for anything: any bytes, any image, any damage."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime

import pytest
from hypothesis import Phase, assume, example, given, settings
from hypothesis import strategies as st

from corpus import CASES, FOUND
from damage import Damage, damages
from guest import NotReadableError, guest_data, guest_map
from images import (
    CONTEXT,
    NOW,
    PARENT_UUID,
    UUID,
    Buffer,
    applied,
    base,
    child,
    device,
    fixed_disk,
    footer_of,
    lost_footer,
    put,
    qemu,
    seen,
    small,
)
from smfix.formats.problem import Context, Parent
from smfix.formats.vhd.build import ParentRef, sparse
from smfix.formats.vhd.image import inspect
from smfix.formats.vhd.problems.registry import PROBLEMS, diagnose
from smfix.formats.vhd.structs import (
    BLOCK_SIZE,
    BatmapHeader,
    Footer,
    Header,
    ParentLocator,
    decode_footer,
    decode_header,
    from_vhd_time,
    geometry_for,
    parse_batmap_header,
    parse_footer,
    parse_header,
    vhd_time,
)
from smfix.repair.fingerprint import fingerprint_matches
from smfix.repair.plan import plan
from smfix.values import Damaged, Diagnosis, Extent, InUse, Reason, Resize, Severity, Sound, Verdict, Write

EVERY = frozenset(problem.code for problem in PROBLEMS)
BASES = {
    "base": base(),
    "small": small(),
    "child": child(),
    "qemu": qemu(),
    "device": device(base()),
}
PRISTINE = {name: guest_data(raw) for name, raw in BASES.items()}
UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)
"""Whole images take too long to be shrunk; a failure is told by its seed."""
U8, U32, U64 = st.integers(0, 255), st.integers(0, 0xFFFFFFFF), st.integers(0, (1 << 64) - 1)


# --------------------------------------------------------------------------- structures

FOOTERS = st.builds(
    Footer,
    st.one_of(st.just(b"conectix"), st.binary(min_size=8, max_size=8)),
    U32,
    U32,
    U64,
    U32,
    st.one_of(st.just(b"tap\0"), st.binary(min_size=4, max_size=4)),
    U32,
    U32,
    U64,
    U64,
    U32,
    st.one_of(st.integers(2, 4), U32),
    U32,
    st.binary(min_size=16, max_size=16),
    U8,
    U8,
    st.one_of(st.just(bytes(426)), st.binary(min_size=426, max_size=426)),
)
LOCATORS = st.builds(ParentLocator, U32, U32, U32, U32, U64)
HEADERS = st.builds(
    Header,
    st.one_of(st.just(b"cxsparse"), st.binary(min_size=8, max_size=8)),
    U64,
    U64,
    U32,
    U32,
    U32,
    U32,
    st.binary(min_size=16, max_size=16),
    U32,
    U32,
    st.one_of(st.just(bytes(512)), st.binary(min_size=512, max_size=512)),
    st.tuples(*[LOCATORS] * 8),
    st.just(bytes(256)),
)
BATMAPS = st.builds(
    BatmapHeader,
    st.binary(min_size=8, max_size=8),
    U64,
    U32.map(lambda sectors: sectors * 512),
    U32,
    U32,
    U8,
    st.binary(min_size=65, max_size=65),
    st.binary(min_size=418, max_size=418),
)


@given(FOOTERS)
def test_a_footer_survives_encoding(footer):
    assert parse_footer(footer.encode()) == footer
    sealed = footer.sealed()
    assert sealed.sealed() == sealed
    got = decode_footer(sealed.encode(), 0)
    assert isinstance(got, Sound) == (footer.cookie in (b"conectix", b"v_poison"))


@given(HEADERS)
def test_a_header_survives_encoding(header):
    assert parse_header(header.encode()) == header
    sealed = header.sealed()
    assert isinstance(decode_header(sealed.encode(), 512), Sound) == (header.cookie == b"cxsparse")
    assert header.blocks_of(1 << 40) >= 0
    header.parent_name_text()


@given(BATMAPS)
def test_a_batmap_header_survives_encoding(header):
    assert parse_batmap_header(header.encode()) == header


@given(st.binary(max_size=600), st.integers(0, 1 << 63))
def test_any_bytes_decode_as_a_footer(raw, at):
    got = decode_footer(raw[:512], at)
    assert got.where == Extent(at, min(len(raw), 512))
    if isinstance(got, Damaged):
        assert got.reasons
        assert got.raw == raw[:512]


@given(st.binary(max_size=1200))
def test_any_bytes_decode_as_a_header(raw):
    got = decode_header(raw[:1024], 0)
    assert isinstance(got, Sound | Damaged)


@given(LOCATORS, st.binary(max_size=100))
def test_any_locator_decodes(locator, data):
    path = locator.decode_path(data)
    assert path is None or path.isascii()
    assert locator.space >= 0


@given(U32)
def test_times_survive(seconds):
    assert vhd_time(from_vhd_time(seconds)) == seconds
    assert vhd_time(datetime(2026, 1, 1, tzinfo=UTC)) == vhd_time(NOW) - (86400 + 3 * 3600 + 4 * 60 + 5)


@given(U64)
def test_any_size_has_a_geometry(size):
    geometry = geometry_for(size)
    assert 0 <= geometry <= 0xFFFFFFFF
    assert (geometry >> 16) * (geometry >> 8 & 255) * (geometry & 255) * 512 <= size + 512 or size == 0


# --------------------------------------------------------------------------- any bytes


def everything(raw: bytes, growable: bool, context: Context) -> None:
    """Inspect, diagnose and plan; hold what must hold for anything."""
    view = Buffer(raw, growable)
    image = inspect(view)
    found = diagnose(image, context)
    assert isinstance(found, Diagnosis)
    errors = [f for f in found.findings if f.severity is Severity.ERROR]
    if errors:
        assert found.verdict is Verdict.INVALID
    for consent in (frozenset[str](), EVERY):
        made = plan(view, context, consent)
        assert made.diagnosis == found
        assert fingerprint_matches(view, made.plan.fingerprint)
        check_edits(raw, growable, made.plan.edits)
        if found.verdict in (Verdict.VALID, Verdict.NOT_A_VHD, Verdict.IN_USE):
            assert made.plan.edits == ()
        if made.plan.refusal is not None and made.plan.refusal.reason is not Reason.NEEDS_CONFIRM:
            assert made.plan.edits == made.plan.fixes == ()
        if made.plan.refusal is None and made.plan.edits:
            assert not [f for f in made.plan.remaining if f.is_damage]
        for run in made.plan.lost:
            assert image.footer is None or run.length > 0


def check_edits(raw: bytes, growable: bool, edits) -> None:
    """No hole, nothing shrinks, a device does not grow, every edit does something."""
    size = len(raw)
    for edit in edits:
        if isinstance(edit, Resize):
            assert growable
            assert edit.size > size
            size = edit.size
        else:
            assert isinstance(edit, Write)
            assert edit.data
            assert 0 <= edit.offset <= size
            size = max(size, edit.extent.end)
    assert growable or size == len(raw)


@given(st.binary(max_size=5000), st.booleans(), st.sampled_from([*InUse]))
@example(b"", True, InUse.NONE)
@example(b"conectix", False, InUse.READ_WRITE)
@example(b"cxsparse" * 1000, True, InUse.NONE)
def test_any_bytes_are_an_image(raw, growable, state):
    everything(raw, growable, Context(NOW, state))


@given(FOOTERS, HEADERS, st.binary(max_size=3000), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=200)
def test_any_sealed_structures_are_an_image(footer, header, rest, end, backup, growable):
    """Checksums are right and every field is anything: what an attacker writes."""
    footer = replace(footer, cookie=b"conectix", data_offset=512).sealed()
    header = replace(header, cookie=b"cxsparse").sealed()
    first = footer.encode() if backup else bytes(512)
    everything(first + header.encode() + rest + (footer.encode() if end else b""), growable, CONTEXT)


HUGE = st.sampled_from([0, 1, 511, 512, 1 << 20, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 62, 1 << 63, (1 << 64) - 1])


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "table_offset": HUGE,
            "max_bat_size": HUGE.filter(lambda n: n < 1 << 32),
            "block_size": HUGE.filter(lambda n: n < 1 << 32),
        },
    ),
    st.fixed_dictionaries({}, optional={"current_size": HUGE, "data_offset": HUGE, "original_size": HUGE}),
    st.sampled_from(["end", "backup", "both"]),
)
def test_sizes_from_hell(header, footer, where):
    raw = put(small(), 512, replace(parse_header(small()[512:1536]), **header).sealed().encode())
    other = replace(footer_of(small()), **footer).sealed().encode()
    raw = put(raw, 0, other) if where != "end" else raw
    raw = put(raw, -512, other) if where != "backup" else raw
    everything(raw, True, CONTEXT)


# --------------------------------------------------------------------------- sound images

SECTOR_SETS = st.sets(st.integers(0, 4095), max_size=4)


@given(
    st.integers(1, 5 * BLOCK_SIZE // 512),
    st.dictionaries(st.integers(0, 4), SECTOR_SETS, max_size=3),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 1 << 20]),
)
@settings(max_examples=40)
def test_a_sound_image_gets_no_finding_and_no_edit(sectors, blocks, differencing, block_device, large):
    size = sectors * 512
    last = -(-size // BLOCK_SIZE) - 1
    data = {
        block: {index: bytes([block + 1]) * 512 for index in indexes if block * 4096 + index < sectors}
        for block, indexes in blocks.items()
        if block <= last
    }
    parent = ParentRef(PARENT_UUID, "parent.vhd") if differencing else None
    raw = sparse(size, UUID, data, parent=parent, bat_blocks=large or None).to_bytes()
    raw = device(raw, 8192) if block_device else raw
    made = plan(Buffer(raw, not block_device), Context(NOW, parent=Parent("parent.vhd", PARENT_UUID)), EVERY)
    # A block that was given a place and never a sector is a block without a trace: that is no finding either.
    assert made.diagnosis == Diagnosis(Verdict.VALID, ())
    assert made.plan.edits == ()
    wanted = {b * 4096 + i: sector for b, content in data.items() for i, sector in content.items()}
    assert guest_data(raw) == wanted


# --------------------------------------------------------------------------- damaged images


def damaged(name: str, made: list[Damage]) -> bytes:
    raw = BASES[name]
    for damage in made:
        raw = damage(raw)
    assume(name != "device" or len(raw) == len(BASES[name]))
    return raw


@given(st.sampled_from(sorted(BASES)), damages(1))
@settings(max_examples=120, phases=UNSHRUNK)
def test_one_damage_is_never_made_worse(name, made):
    raw = damaged(name, made)
    held(name, raw, frozenset(), whole=True)
    held(name, raw, EVERY, whole=True)


@given(st.sampled_from(sorted(BASES)), damages(3))
@settings(max_examples=120, phases=UNSHRUNK)
def test_several_damages_are_never_made_worse(name, made):
    """One damage can destroy the evidence of another: what the guest can read now is kept all the same."""
    raw = damaged(name, made)
    held(name, raw, frozenset(), whole=False)
    held(name, raw, EVERY, whole=False)
    everything(raw, name != "device", FOUND)


def held(name: str, raw: bytes, consent: frozenset[str], *, whole: bool) -> None:
    """A repair keeps what the guest could read, gives back all it had (`whole`), and is done once."""
    growable = name != "device"
    made = plan(Buffer(raw, growable), FOUND, consent)
    check_edits(raw, growable, made.plan.edits)
    if made.plan.refusal is not None or not made.plan.edits:
        return
    after = applied(raw, made.plan.edits)
    assert len(after) >= len(raw)
    assert len(after) < len(raw) + 4 * BLOCK_SIZE
    if not consent:
        assert made.plan.lost == ()
        try:
            before = guest_map(raw)
        except NotReadableError:
            pass
        else:
            assert guest_map(after) == before
            assert guest_data(after) == {sector: raw[at : at + 512] for sector, at in before.items()}
    warned = {f.code for f in made.plan.remaining} & {"VHD304", "VHD402"}
    lost = {sector for run in made.plan.lost for sector in range(run.offset // 512, run.end // 512)}
    if whole and not warned:
        data = guest_data(after)
        wrong = {n for n in data.keys() | PRISTINE[name].keys() if data.get(n) != PRISTINE[name].get(n)}
        assert wrong <= lost
    again = plan(Buffer(after, growable), FOUND, consent)
    assert again.plan.edits == ()
    assert again.diagnosis.findings == made.plan.remaining
    if not [f for f in made.plan.remaining if f.severity is Severity.ERROR]:
        assert again.diagnosis.verdict is Verdict.VALID


@pytest.mark.parametrize("code", CASES)
def test_every_case_of_the_corpus_holds_the_promises(code):
    case = CASES[code]()
    everything(case.raw, case.growable, case.context)
    everything(case.raw, False, case.context)


@given(st.integers(0, len(base()) - 1), st.integers(0, 7))
@settings(max_examples=60)
def test_any_bit_turned_over_anywhere_in_a_lost_footers_image(at, bit):
    raw = lost_footer(put(base(), at, bytes([base()[at] ^ (1 << bit)])))
    everything(raw, True, CONTEXT)


def test_the_models_of_the_generators_are_whole():
    assert len(fields(Footer)) == 17
    assert len(fields(Header)) == 13
    assert isinstance(seen(fixed_disk()).end, Sound)
