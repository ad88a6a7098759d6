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
    logs = {path.name for path in LOGS.iterdir() if not path.name.endswith(".incidents.json")}
    assert logs == {log_of(truth).name for truth in TRUTHS}


def test_evidence_is_what_stands_in_that_line():
    for truth in TRUTHS:
        lines = log_of(truth).read_text(encoding="utf-8").splitlines()
        for incident in read_truth(truth).incidents:
            for quote in incident.evidence:
                assert lines[quote.line - 1].startswith(quote.text[:100])
