"""Count the idioms that hide who does what when, per 1,000 words of prose; exit 1 if one is over its bound.

``python tools/style.py [--show] [--quiet] [--skip PATH] [PATH ...]`` reads Python files (docstrings and comments) and
Markdown files (without code, links' targets and HTML comments) below each PATH; default: docs and README.md. Each PATH
is counted on its own. ``--show`` prints the lines to change.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Idiom(NamedTuple):
    """A pattern that is to be rare: at most `bound` hits in 1,000 words. `better` says what to write."""

    name: str
    pattern: re.Pattern[str]
    bound: float
    better: str


def _idiom(name: str, pattern: str, bound: float, better: str) -> Idiom:
    return Idiom(name, re.compile(pattern), bound, better)


IDIOMS = (
    _idiom(
        "nobody / somebody / whoever / whom",
        r"\b([Nn]obody|[Ss]omebody|[Ww]hoever|whom)\b",
        0.4,
        "name the process or the person",
    ),
    _idiom("What ... as subject", r"(^|[.:;(] |\n)What [a-z]+ ", 0.5, "name the thing"),
    _idiom(
        "where for if / when",
        r"\b[Ww]here (it|there|that|nothing|nobody|they|no|a|an|the|this|those|none|one) ",
        1.5,
        "if, when",
    ),
    _idiom("behind", r"\bbehind\b", 0.4, "after"),
    _idiom("stands / lies", r"\b(stands|stand|lies|lie|lay|stood)\b", 0.4, "is"),
    _idiom("is told / is said / tells", r"\b(is|are|was|be|been) (told|said)\b|\btells\b", 0.4, "reports, prints"),
)
_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
_NO_PROSE = re.compile(
    r"^(```|~~~).*?^\1[^\n]*$"  # fenced code
    r"|<!--.*?-->"
    r"|`[^`\n]*`"
    r"|(?<=\])\([^)\s]*\)",
    re.DOTALL | re.MULTILINE,
)


class Prose(NamedTuple):
    """A piece of prose and the line of its file on which it begins."""

    path: Path
    line: int
    text: str


def python_prose(path: Path) -> Iterator[Prose]:
    """Yield the docstrings and the comments of a Python file."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)):
            yield Prose(path, node.body[0].lineno, text)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Prose(path, token.start[0], token.string)


def markdown_prose(path: Path) -> Iterator[Prose]:
    """Yield a Markdown file as one piece; its code is blanked out, so that lines keep their numbers."""
    text = path.read_text(encoding="utf-8")
    yield Prose(path, 1, _NO_PROSE.sub(lambda found: "\n" * found.group().count("\n") or " ", text))


_READERS = {".py": python_prose, ".md": markdown_prose}


def prose(root: Path, skipped: tuple[Path, ...] = ()) -> Iterator[Prose]:
    """Yield the prose of a file, or of every Python and Markdown file below a folder, without those in `skipped`."""
    for path in [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.suffix in _READERS):
        if not any(path.is_relative_to(skip) for skip in skipped):
            yield from _READERS[path.suffix](path)


def hits(idiom: Idiom, pieces: list[Prose]) -> Iterator[tuple[Path, int, str]]:
    """Yield (path, line, the line's text) for each use of an idiom."""
    for piece in pieces:
        lines = piece.text.split("\n")
        for found in idiom.pattern.finditer(piece.text):
            row = piece.text.count("\n", 0, found.end() - 1)
            yield piece.path, piece.line + row, lines[row].strip()


def report(root: Path, skipped: tuple[Path, ...], *, show: bool) -> tuple[str, bool]:
    """Return the table of one PATH, and whether an idiom is over its bound."""
    pieces = list(prose(root, skipped))
    words = sum(len(re.findall(r"\w+", piece.text)) for piece in pieces)
    lines, over = [f"{root}: {words:,} words"], False
    for idiom in IDIOMS:
        found = list(hits(idiom, pieces))
        rate = 1000 * len(found) / max(words, 1)
        over = over or rate > idiom.bound
        better = f"  over: {idiom.better}" if rate > idiom.bound else ""
        lines.append(f"  {idiom.name:36} {rate:5.2f}  (<= {idiom.bound}){better}")
        lines += [f"    {path}:{line}: {text}" for path, line, text in found if show]
    return "\n".join(lines), over


def main(words: list[str] | None = None) -> int:
    """Print the tables; 1 if one is over, 2 if a PATH holds no prose to count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, default=[Path("docs"), Path("README.md")], metavar="PATH")
    parser.add_argument("--skip", action="append", type=Path, default=[], metavar="PATH")
    parser.add_argument("--show", action="store_true", help="print the lines that hold an idiom")
    parser.add_argument("--quiet", action="store_true", help="print only the tables of paths that are over")
    options = parser.parse_args(words)
    for root in options.paths:
        if not root.is_dir() and (not root.is_file() or root.suffix not in _READERS):
            parser.error(f"{root}: no folder, and no .py or .md file")
    tables = [report(root, tuple(options.skip), show=options.show) for root in options.paths]
    shown = [text for text, over in tables if over or not options.quiet]
    if shown:
        print("\n".join(shown))
    return 1 if any(over for _, over in tables) else 0


if __name__ == "__main__":
    sys.exit(main())
