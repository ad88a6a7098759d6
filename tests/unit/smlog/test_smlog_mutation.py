"""A small run of the mutations; tests/support/smlog_mutation.py does a million lines."""

from __future__ import annotations

import pytest

from smlog_mutation import run


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_mutated_logs(seed):
    lines, incidents = run(15_000, seed)
    assert lines >= 15_000
    assert incidents > 20
