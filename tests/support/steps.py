"""Steps as the command lines that a person types."""

from __future__ import annotations

from collections.abc import Iterable

from smfix.report.next_steps import command_line
from smfix.values import NextStep, StepKind


def lines(steps: Iterable[NextStep]) -> tuple[str, ...]:
    """The command lines of `steps`."""
    return tuple(map(command_line, steps))


def as_it_is(line: str) -> NextStep:
    """A step whose command line is `line`."""
    return NextStep(StepKind.TEXT, (line,))
