"""Every log of the truth corpus holds the incidents that stand beside it, and no others."""

from __future__ import annotations

import json

import pytest

from smlog_corpus import LOGS, TRUTHS, as_truth, log_of, read_truth


@pytest.mark.parametrize("truth", TRUTHS, ids=lambda path: log_of(path).name)
def test_the_log_holds_these_incidents_and_no_others(truth):
    reading = read_truth(truth)
    expected = json.loads(truth.read_text(encoding="utf-8"))["incidents"]
    assert [as_truth(incident) for incident in reading.incidents] == expected


def test_every_log_has_its_truth():
    logs = {path.name for path in LOGS.glob("*.log")}
    assert logs == {log_of(truth).name for truth in TRUTHS}


def test_noise_is_at_least_as_common_as_damage():
    noise = [truth for truth in TRUTHS if not json.loads(truth.read_text(encoding="utf-8"))["incidents"]]
    assert 2 * len(noise) >= len(TRUTHS)


@pytest.mark.parametrize("truth", TRUTHS, ids=lambda path: log_of(path).name)
def test_every_uuid_told_stands_in_the_log(truth):
    text = log_of(truth).read_text(encoding="utf-8", errors="replace")
    if "wrapped" in truth.name:
        text = text.replace("\n", "")
    for incident in read_truth(truth).incidents:
        assert incident.vdi.text in text
        assert incident.sr is None or incident.sr in text
        folder, _, name = (incident.path or "").rpartition("/")
        assert incident.path is None or incident.path in text or (folder in text and name in text)


def test_evidence_is_what_stands_in_that_line():
    checked = 0
    for truth in TRUTHS:
        lines = log_of(truth).read_bytes().decode("utf-8", "replace").split("\n")
        if "paste" in truth.name:  # joined and unescaped lines are no longer what they were
            continue
        for incident in read_truth(truth).incidents:
            for quote in (*incident.evidence, *incident.proof):
                assert lines[quote.line - 1].lstrip("\0").startswith(quote.text[:100])
                checked += 1
    assert checked > 100
