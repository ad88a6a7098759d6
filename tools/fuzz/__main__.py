"""Run one target under atheris: ``python -m fuzz TARGET [libFuzzer options] [corpus folder]``."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["smfix"]):
    from fuzz.targets import TARGETS


def main() -> None:
    """Hand the target over; libFuzzer ends the process."""
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
