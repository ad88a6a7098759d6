"""The tables of messages: samples match, near misses do not, and every pattern is quick."""

from __future__ import annotations

import re
import time

import pytest

from smfix.smlog.correlate import failed_commands as records
from smfix.smlog.inputs import unwrap_paste as paste
from smfix.smlog.parse import disk_names as names
from smfix.smlog.parse import prefixes as formats
from smfix.smlog.parse.literal_search import LiteralSearch, PlainEngine
from smfix.smlog.rules import messages, tool_output
from smfix.smlog.rules import resolutions as proofs
from smfix.smlog.rules.messages import ANCHORS, RULES, MessageKind, match
from smfix.smlog.rules.resolutions import RESOLUTION_RULES
from smfix.smlog.rules.tool_output import COMPLAINTS, Weight, complaint, verdicts

SAMPLES = [(rule.name, sample) for rule in RULES for sample in rule.samples]
MISSES = [(rule.name, miss) for rule in RULES for miss in rule.near_misses]


@pytest.mark.parametrize(("name", "message"), SAMPLES)
def test_samples_are_read_by_their_rule(name, message):
    assert match(message)[0].name == name


@pytest.mark.parametrize(("name", "message"), SAMPLES)
def test_an_engine_finds_every_sample(name, message):
    data = message.encode()
    assert LiteralSearch(ANCHORS, PlainEngine()).find_all(data, len(data))


@pytest.mark.parametrize(("name", "message"), MISSES)
def test_near_misses_are_not(name, message):
    found = match(message)
    assert found is None or found[0].name != name


def test_a_sample_of_one_rule_is_of_no_other_that_means_something():
    """Noise is what the rest leaves over; all other rules exclude each other."""
    telling = [
        rule for rule in RULES if rule.kind not in (MessageKind.NOISE, MessageKind.FAILED)
    ]  # a record holds other messages
    for rule in telling:
        for sample in rule.samples:
            assert [other.name for other in telling if other.pattern.search(sample)] == [rule.name]


def test_every_rule_has_its_proofs_and_its_source():
    for rule in RULES:
        assert rule.samples
        assert rule.near_misses
        assert rule.source
        assert bool(rule.why) == (rule.kind is MessageKind.NOISE)
    for row in RESOLUTION_RULES:
        assert row.samples
        assert row.near_misses
        assert row.source
    for row in COMPLAINTS:
        assert row.samples
        assert row.near_misses


@pytest.mark.parametrize("row", RESOLUTION_RULES, ids=lambda row: row.name)
def test_proof_rules(row):
    for sample in row.samples:
        assert row.pattern.search(sample)
        assert row.anchor.decode() in sample
        assert [other.name for other in RESOLUTION_RULES if other.pattern.search(sample)] == [row.name]
    for miss in row.near_misses:
        assert not row.pattern.search(miss)


@pytest.mark.parametrize("row", COMPLAINTS, ids=lambda row: row.kind or "storage")
def test_complaints(row):
    for sample in row.samples:
        assert complaint(sample) is row
    for miss in row.near_misses:
        assert complaint(miss) is not row


def test_an_anchor_far_into_a_line_is_found():
    assert match("x" * 50_000 + RULES[0].samples[0])[0].name == "corrupted"


# --------------------------------------------------------------------------- vhd-util's output

A, B = "/run/sr-mount/s/a.vhd", "/run/sr-mount/s/b.vhd"


def verdict_list(*lines):
    return [(v.path, v.kinds, v.weight, v.said) for v in verdicts(zip(lines, range(len(lines)), strict=True))]


def test_complaints_stand_before_their_path():
    assert verdict_list(
        f"{A} is valid",
        "primary footer invalid: invalid cookie",
        f"{B} appears invalid; dumping metadata",
        "VHD Footer Summary:",
    ) == [(B, ("footer-invalid",), Weight.DAMAGE, [1, 2])]


def test_a_valid_image_has_no_complaints_of_the_one_before():
    assert verdict_list("error getting parent: -2", f"{A} is valid") == []


def test_a_header_that_is_bad_is_dumped_twice():
    said = verdict_list(
        "header is invalid: invalid cookie",
        f"{A} appears invalid; dumping metadata",
        f"{A} appears invalid; dumping headers",
        f"Failed to open {A}: -22",
    )
    assert said == [(A, ("header-invalid",), Weight.DAMAGE, [0, 1, 3])]


def test_a_trace_with_literal_line_ends():
    mismatch = "primary and backup footers do not match"
    line = rf"Unexpected output '{A} is valid\n{mismatch}\n{B} appears invalid; dumping metadata\nx"
    assert verdict_list(line) == [(B, ("footer-mismatch",), Weight.DAMAGE, [0, 0])]


def test_a_paste_in_one_line():
    assert verdict_list(f"FAILED: 'backup footer invalid: x {A} appears invalid; dumping metadata VHD Footer") == [
        (A, ("backup-footer-invalid",), Weight.DAMAGE, [0, 0])
    ]


def test_complaints_without_a_path():
    assert verdict_list("could not find parent /x.vhd") == [(None, ("parent-missing",), Weight.OTHER, [0])]


def test_the_gravest_complaint_counts():
    assert verdict_list("error opening /x.vhd: -2") == [
        (
            "/x.vhd",
            (),
            Weight.STORAGE,
            [0],
        )
    ]
    assert verdict_list("error opening /x.vhd: -22", "invalid parent /y.vhd: uuids") == [
        ("/x.vhd", ("open-failed",), Weight.DAMAGE, [0, 1])
    ]
    both = verdict_list("error reading bat: -22", "error opening /x.vhd: -22")
    assert both[0][1] == ("bat-invalid",)


# --------------------------------------------------------------------------- no pattern is slow

HOSTILE = [
    "/" * 60_000,
    "/a" * 30_000,
    "a" * 60_000,
    "EXCEPTION " * 6_000,
    ": EXCEPTION <class 'a" * 3_000,
    "EXCEPTION util.SMException, VHD *1d994938(" + "(" * 50_000,
    "[" * 60_000,
    "['" * 30_000,
    "'check', " * 6_000,
    "> " * 30_000,
    "#" * 60_000,
    " " * 60_000,
    "FAILED in util.pread: (rc 22) stdout: '" + "', stderr: '" * 5_000,
    "error opening /" + "x" * 60_000 + ": -2",
    "opterr=uuid=" * 5_000,
    "vhd=" * 15_000,
    "vhd=" + "x" * 60_000 + " scan-error",
    "block 7 (offset 0x" * 3_000,
    "Relinking *1d994938(" * 3_000,
    "VG_XenStorage--" + "a-" * 30_000,
    "appears invalid" * 4_000,
    "=== SR " * 8_000,
    "\\n" * 30_000,
    "Aug  9 " * 8_000,
    "SMlog" * 12_000,
    "message repeated " * 3_000,
]


MATCHED = {"_COMMAND", "_SUCCESS", "_ANOTHER_MESSAGE", "_QUOTED", "_GREPPED"}  # asked at a line's start only


def patterns():
    for module in (tool_output, formats, names, paste, proofs, records, messages):
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
                yield f"{module.__name__}.{name}", value.match if name in MATCHED else value.search
    for rule in RULES:
        yield rule.name, rule.pattern.search
    for row in (*COMPLAINTS, *RESOLUTION_RULES):
        yield "row", row.pattern.search
    yield "match", match
    yield "read_prefix", formats.read_prefix
    yield "unescape", formats.unescape
    yield "image_paths", lambda text: list(names.image_paths(text))
    yield "arguments", records.arguments
    yield "verdicts", lambda text: verdicts([(text, 0)])


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12])
def test_no_pattern_is_slow(text):
    """A line is read up to 64 KiB; any pattern is through with that in well under a second."""
    for name, search in patterns():
        begun = time.process_time()
        search(text)
        assert time.process_time() - begun < 1.0, name
