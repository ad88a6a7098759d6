"""smfix's verdict against the real ``vhd-util check``, on thousands of generated and mutated images.

The tool's verdicts are recorded (fixtures/images), so this runs without it; where it is installed, a slice of them
is asked for again. What smfix decides differently is a rule (docs/adr/0009), and how many images each rule excuses
is held here.
"""

from __future__ import annotations

from collections import Counter

import pytest

from matrix import agreement, mutants, verdicts

SLICES = 16
EXCUSED = {
    "never looked at": 471,
    "partial last block": 500,
    "the cause is named, not what it touches": 180,
    "first reserved byte": 142,
    "32-bit end of a block": 94,
    "blocks of another size": 37,
    "batmap header against the layout": 33,
    "batmap bits that libvhd does not read": 6,
    "a 511-byte footer counts as a whole one": 4,
    "64-bit end of a locator": 3,
}
"""Images that each rule excuses at most. Where one has to grow, smfix sees something new: look, then raise it."""


@pytest.fixture(scope="module")
def recorded():
    return verdicts.load()


@pytest.fixture(scope="module")
def tally():
    return Counter()


def held(number, opinion):
    image, findings = agreement.seen(mutants.mutant(number), "/sr")
    return agreement.compare(image, findings, opinion)


def test_enough_is_recorded(recorded):
    assert len(recorded) == mutants.COUNT >= 5000
    valid = sum(opinion.is_valid for opinion in recorded)
    assert mutants.COUNT // 5 < valid < mutants.COUNT // 2
    assert len({opinion.line.split(" (")[0] for opinion in recorded}) > 50


@pytest.mark.parametrize("part", range(SLICES))
def test_verdict_and_first_message_are_those_of_vhd_util(part, recorded, tally):
    differing = {}
    for number in range(part, mutants.COUNT, SLICES):
        agreed = held(number, recorded[number])
        tally.update(agreed.rules)
        if agreed.differs:
            differing[number] = agreed.differs
    assert not differing


def test_the_rules_excuse_no_more_images_than_is_written_down(tally):
    assert tally.keys() == EXCUSED.keys()
    assert {rule: (count, EXCUSED[rule]) for rule, count in tally.items() if count > EXCUSED[rule]} == {}


def test_sound_images_are_sound_to_both(recorded):
    """Every twentieth number is not mutated."""
    for number in range(0, mutants.COUNT, 20):
        opinion = recorded[number]
        _, findings = agreement.seen(mutants.mutant(number), "/sr")
        assert opinion.is_valid or "invalid batmap size" in opinion.line, number
        assert not [f for f in findings if f.severity.value == "error" and f.code != "VHD905"], number


def is_quick(number):
    """A header that vhd_open refuses costs the tool ten seconds."""
    image, findings = agreement.seen(mutants.mutant(number), "/sr")
    return image.looks_like_vhd and not [finding for finding in findings if finding.code[3] == "2"]


@pytest.mark.vhdutil
def test_the_tool_still_says_what_was_recorded(recorded, tmp_path):
    for number in filter(is_quick, range(7, mutants.COUNT, 97)):
        (said,) = verdicts.ask(range(number, number + 1), tmp_path)
        if said.code >= 128 or recorded[number].line.startswith("error"):
            assert not said.is_valid
        else:
            assert said == recorded[number], number
