"""A sample of the damage matrix (``make matrix``): every kind of damage on one of four small bases, no tool needed.

And some kinds on one base together, drawn by chance, as ``python -m matrix.combined`` does by the thousand.
"""

from __future__ import annotations

import pytest

from matrix import cases, combined, report, synthetic
from matrix.kinds import KINDS

BASES = tuple(synthetic.MAKERS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("matrix")
    bases = {name: synthetic.make(name, home) for name in BASES}
    return {name: (base, cases.place(base, home / "work" / name)) for name, base in bases.items()}


def run(kind, made):
    """The kind on the base whose turn it is, or on the next one that it can damage."""
    turn = KINDS.index(kind)
    for name in (*BASES[turn % len(BASES) :], *BASES):
        base, work = made[name]
        case = cases.run_case(base, kind, work, peers=False, tool=False)
        if case is not None:
            return case
    raise AssertionError(f"no base that {kind.name} could damage")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_nothing_is_lost_and_nothing_blessed_falsely(kind, made):
    hold(run(kind, made))


@pytest.mark.parametrize("number", range(60))
def test_nor_is_it_where_several_damages_meet(number, made):
    it = combined.drawn(number, 20, [base for base, _ in made.values()])
    work = next(work for base, work in made.values() if base == it.base)
    hold(cases.treat(it.base, it.name, it.sample, it.truth, it.damaged, work, peers=False, tool=False))


def hold(case):
    """No number that must be 0 is more."""
    for name, result in case.results.items():
        broken = [title for title, test in report.MUST_BE_NONE if test(case, result)]
        assert not broken, (name, result)
        assert result.undone is not False, name
        assert result.twice != "wrote", name


@pytest.mark.parametrize("name", BASES)
def test_a_sound_base_is_valid_and_stays_as_it_is(name, made):
    base, work = made[name]
    raw = base.image.read_bytes()
    path = work / base.image.name
    path.write_bytes(raw)
    treated = cases.treatments.smfix(path, work.parent / "journals", consent=True)
    assert treated.outcome.status.value == "valid"
    assert path.read_bytes() == raw
    path.unlink()


def test_there_are_kinds_enough():
    assert len(KINDS) >= 80
    assert all(kind.text for kind in KINDS)
