"""What ``vhd-util check`` said of every mutant, as data: ``fixtures/images/vhd-util-check.txt``.

``python -m matrix.verdicts`` records it anew (needs vhd-util; a minute). One line for each number: exit code (128 +
n: ended by signal n), a tab, the first line of output, the image's path written IMAGE. Recorded with a library that
lets sleep() return at once (SMFIX_MATRIX_PRELOAD): a damaged header costs vhd-util ten retries of a second.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from matrix import mutants, treatments
from matrix.treatments import Opinion

FILE = Path(__file__).resolve().parents[2] / "fixtures" / "images" / "vhd-util-check.txt"


def load() -> list[Opinion]:
    """The recorded opinions, by number."""
    opinions = []
    for line in FILE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            code, said = line.split("\t", 1)
            opinions.append(Opinion(int(code), said.encode("ascii").decode("unicode_escape")))
    return opinions


def ask(numbers: range, folder: Path) -> list[Opinion]:
    """The tool's own opinion of the mutants, written one after the other into `folder`."""
    mutants.parent().write(folder / mutants.PARENT_NAME)
    path = folder / "image.vhd"
    opinions = []
    for number in numbers:
        mutants.mutant(number).write(path)
        opinions.append(treatments.vhd_util_check(path))
    return opinions


def record() -> None:
    """Ask the tool about every mutant and write the file."""
    with tempfile.TemporaryDirectory() as folder:
        opinions = ask(range(mutants.COUNT), Path(folder))
    intro = "# vhd-util check on mutants 0 to {}: exit code, first line. See tools/matrix/verdicts.py.\n"
    lines = [f"{opinion.code}\t{_printable(opinion.line)}\n" for opinion in opinions]
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(intro.format(mutants.COUNT - 1) + "".join(lines), encoding="utf-8")
    print(f"{FILE.name}: {len(opinions)} verdicts, {sum(o.is_valid for o in opinions)} valid")


def _printable(line: str) -> str:
    return line.encode("unicode_escape").decode("ascii")


if __name__ == "__main__":
    record()
