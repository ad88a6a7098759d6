"""The entry point: ``smfix`` and ``python -m smfix``.

``--version`` is answered here, before typer is imported: half of the start-up time is typer's.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run smfix with this process's arguments; leaves by SystemExit with the contract's code."""
    if sys.argv[1:] == ["--version"]:
        from smfix import __version__

        sys.stdout.write(f"smfix {__version__}\n")
        raise SystemExit(0)
    from smfix.cli import run

    raise SystemExit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
