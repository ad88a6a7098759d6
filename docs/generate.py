"""Make the reference pages and the manual pages from the code, and the index of decisions from their files.

``python docs/generate.py`` writes the pages that have changed; a test checks that all are up to date. In
``docs/reference`` only ``contract.md`` is written by hand, in ``docs/man`` no page.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from smfix.cli.app import EPILOG, application
from smfix.report import explain
from smfix.report.glossary import TERMS, terms

DOCS = Path(__file__).resolve().parent
MADE = "<!-- Made by docs/generate.py: change the code, then run `make reference`. -->\n"
_SLOT = re.compile(r"\{(\w+)[^}]*\}")
SEE = (
    "The documentation's site (`make docs`) has a tutorial, how-tos, every finding, and why footers vanish. "
    "`smfix explain CODE` says of a finding what it means, why it happens, and what is done about it."
)
FAMILIES = {
    "1": "Footers and the end of the file",
    "2": "Header",
    "3": "BAT and blocks",
    "4": "Batmap and sector bitmaps",
    "5": "Chain",
    "9": "Not damage",
}
"""First digit of a finding's code -> the heading of its group."""


def pages() -> dict[str, str]:
    """Return every generated page: its path below ``docs/``, and its text."""
    made = {
        "adr/README.md": decisions(),
        "reference/commands.md": commands(),
        "reference/findings.md": findings(),
        "reference/json.md": documents(),
        "man/smfix.1": manual(),
    }
    made.update((f"man/smfix-{_slug(name)}.1", manual_of(name, command)) for name, command in _commands())
    return made


def _commands() -> list[tuple[str, Any]]:
    """List every command by its words: ``from-log``, ``service install``."""
    found: list[tuple[str, Any]] = []
    for name, command in get_command(application()).commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        found += [(name, command)] if below is None else [(f"{name} {sub}", each) for sub, each in below.items()]
    return found


def _slug(name: str) -> str:
    return name.replace(" ", "-")


def _parts(command: Any) -> tuple[list[Any], list[Any]]:
    """Split a command's parameters into arguments and options, in the order of their declaration."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    return arguments, [each for each in command.params if each.param_type_name == "option"]


def _usage(name: str, command: Any) -> str:
    arguments, _ = _parts(command)
    return " ".join(["smfix", name, "[OPTIONS]", *(each.metavar or each.name.upper() for each in arguments)])


def _flag(option: Any) -> str:
    """Format an option as ``--yes, -y`` or ``--html FILE``."""
    names = ", ".join(option.opts)
    return names if option.is_flag else f"{names} {option.metavar or option.type.name.upper()}"


def _help(parameter: Any) -> str:
    words = " ".join((parameter.help or "").split())
    return f"{words} Environment: `{parameter.envvar}`." if getattr(parameter, "envvar", None) else words


def _paragraphs(text: str | None) -> list[str]:
    return [" ".join(part.split()) for part in (text or "").split("\n\n") if part.strip()]


# --------------------------------------------------------------------------- pages of the site


def commands() -> str:
    """Describe each command: what it does, its arguments, options and exit codes."""
    lines = ["# Commands\n", MADE, EPILOG, "\n"]
    for name, command in _commands():
        arguments, options = _parts(command)
        lines += [f"## smfix {name}\n", *(f"{part}\n" for part in _paragraphs(command.help))]
        lines.append(f"```\n{_usage(name, command)}\n```\n")
        if arguments or options:
            lines += ["| argument or option | meaning |", "|---|---|"]
            lines += [f"| `{_cell(each.metavar or each.name.upper())}` | {_cell(_help(each))} |" for each in arguments]
            lines += [f"| `{_cell(_flag(each))}` | {_cell(_help(each))} |" for each in options]
            lines.append("")
    return "\n".join(lines)


def findings() -> str:
    """List every row of the problem table by family, then the words that the rows use."""
    rows = explain.rows(None)
    lines = [
        "# Findings\n",
        MADE,
        (
            "The code of a finding keeps its meaning for ever. **SAFE** is repaired with `--yes` or an answered "
            "prompt: the repair is proved to change no guest sector and no live metadata. **CONFIRM** is repaired "
            "only with `--confirm CODE` as well: it is a sound judgement, or a loss that has already happened and must "
            "be named. **REPORT** has no repair in smfix. A row with several dispositions depends on the evidence in "
            "the image; each finding says which one holds. An `error` is damage on which `vhd-util check` fails, or "
            "guest data that is known to be lost or misplaced.\n"
        ),
    ]
    for digit, title in FAMILIES.items():
        family = [row for row in rows if row.code[3] == digit]
        lines += [
            f"**{title}** (VHD{digit}xx)\n",
            "| code | title | consent | severity |\n|---|---|---|---|",
            *(
                f"| [{row.code}](#{row.code.lower()}) | {_cell(row.title)} | {explain.dispositions(row)} "
                f"| {row.severity.value} |"
                for row in family
            ),
            "",
        ]
    for digit, title in FAMILIES.items():
        lines.append(f"## {title} {{ #vhd{digit}xx }}\n")
        for row in rows:
            if row.code[3] == digit:
                lines += _finding(row)
    lines += ["## Words\n", *(f"**{term}**: {meaning}.\n" for term, meaning in sorted(TERMS.items(), key=_by_name))]
    return "\n".join(lines)


def _finding(row: Any) -> Iterator[str]:
    """Yield the lines of one finding's section."""
    message = _SLOT.sub(r"<i>\1</i>", row.message.replace("<", "&lt;")).strip()
    yield f"### {row.code} {row.title} {{ #{row.code.lower()} }}\n"
    yield f"{row.severity.value}; {explain.dispositions(row)}\n"
    labelled = [
        ("Message", message),
        ("Meaning", row.means),
        ("Cause", row.why),
        ("Consent", explain.consent(row)),
        ("After the repair", f"{row.done}." if row.done else ""),
        ("What you can do", row.advice),
        ("Source of the rule", row.source),
        ("Words", ", ".join(f"[{term}](#words)" for term, _ in terms(" ".join(explain.row_text(row))))),
    ]
    yield from (f"**{label}.** {text}\n" for label, text in labelled if text)


def _by_name(item: tuple[str, str]) -> str:
    return item[0].lower()


def documents() -> str:
    """Describe the JSON documents from their schemas."""
    lines = [
        "# JSON\n",
        MADE,
        (
            "With `--json` a command prints one document on stdout, and nothing else there. Times are ISO 8601 with an "
            "offset, offsets and sizes are bytes, UUIDs are lower case, an unknown value is `null`, and no key is "
            "ever missing. Keys are added, never removed or renamed. The tables are made from the schemas, which are "
            "binding.\n"
        ),
    ]
    for path in sorted((DOCS / "schema").glob("*.schema.json")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        lines.append(f"## {schema.get('title', path.name.split('.')[0])}\n")
        if "description" in schema:
            lines.append(f"{schema['description']}\n")
        lines.append(f"Schema: [{path.name}](../schema/{path.name})\n")
        rows = list(_keys(schema, ""))
        if rows:
            lines += ["| key | type | description |", "|---|---|---|"]
            lines += [f"| `{key}` | {_cell(kind)} | {_cell(words)} |" for key, kind, words in rows]
            lines.append("")
    return "\n".join(lines)


def _keys(schema: dict[str, Any], above: str) -> Iterator[tuple[str, str, str]]:
    """Yield (path, type, description) of every key, depth first."""
    for name, about in schema.get("properties", {}).items():
        key = f"{above}{name}"
        yield key, _kind(about), about.get("description", "")
        for inner in (about, *about.get("anyOf", ()), *about.get("oneOf", ())):
            if inner.get("type") == "array" or "items" in inner:
                yield from _keys(inner.get("items", {}), f"{key}[].")
            else:
                yield from _keys(inner, f"{key}.")


def _kind(about: dict[str, Any]) -> str:
    if "$ref" in about:
        return str(about["$ref"]).partition(".")[0]
    if "const" in about:
        return f"`{json.dumps(about['const'])}`"
    if "enum" in about:
        return ", ".join(f"`{json.dumps(value)}`" for value in about["enum"])
    if "anyOf" in about or "oneOf" in about:
        return " or ".join(_kind(each) for each in about.get("anyOf") or about["oneOf"])
    kind = about.get("type", "anything")
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    inner = about.get("items")
    return f"{words} of {_kind(inner)}" if inner else words


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


# --------------------------------------------------------------------------- decisions

_FIELD = re.compile(r"^\*\*(Topic|Status)\.\*\* (.+?)$", re.MULTILINE)


def decisions() -> str:
    """List the decisions by number, with the topic and the status that each file states."""
    lines = [
        "# Decisions\n",
        MADE,
        (
            "One file for each decision that could have been made otherwise: what was decided, why, what it costs. "
            "Numbers have no gaps. A decision is not rewritten when it changes: a new one supersedes it, and the "
            "status of the old one says so. Code and tests cite them as `decision N`.\n"
        ),
        "| | decision | topic | status |\n|---|---|---|---|",
    ]
    for path in sorted((DOCS / "adr").glob("[0-9]*.md")):
        text = path.read_text(encoding="utf-8")
        number, _, title = text.partition("\n")[0].removeprefix("# ").partition(". ")
        fields = dict(_FIELD.findall(text))
        lines.append(f"| {number} | [{title}]({path.name}) | {fields.get('Topic', '')} | {fields.get('Status', '')} |")
    return "\n".join([*lines, ""])


# --------------------------------------------------------------------------- manual pages


def manual() -> str:
    """Write smfix(1)."""
    root = get_command(application())
    parts = [
        _head("smfix", "repair the damaged VHD disks that a storage log names"),
        ".SH SYNOPSIS\n.B smfix\n.I COMMAND\n[\\fIOPTIONS\\fR]",
        ".SH DESCRIPTION\n" + "\n.PP\n".join(_roff(part) for part in _paragraphs(root.help)),
        _roff(
            "smfix reads the storage log of a XenServer or XCP-ng host, finds the disks that are in trouble, says "
            "what is wrong with each, repairs what can be repaired without guessing, checks the result on a fresh "
            "open, and can put everything back byte for byte."
        ),
        ".SH COMMANDS",
    ]
    for name, command in _commands():
        parts.append(f".TP\n.BR smfix\\-{_roff(_slug(name))} (1)\n{_roff(_paragraphs(command.help)[0])}")
    return "\n".join([*parts, _tail(), ""])


def manual_of(name: str, command: Any) -> str:
    """Write smfix-COMMAND(1)."""
    arguments, options = _parts(command)
    description = _paragraphs(command.help)
    words = _usage(name, command).removeprefix(f"smfix {name} ")
    parts = [
        _head(f"smfix-{_slug(name)}", _begun(description[0].rstrip("."))),
        f".SH SYNOPSIS\n.B smfix {_roff(name)}\n{_roff(words)}",
        ".SH DESCRIPTION\n" + "\n.PP\n".join(_roff(part) for part in description),
        ".SH OPTIONS",
    ]
    parts += [f".TP\n.I {_roff(each.metavar or each.name.upper())}\n{_roff(_help(each))}" for each in arguments]
    parts += [f".TP\n.B {_roff(_flag(each))}\n{_roff(_help(each))}" for each in options]
    return "\n".join([*parts, _tail(), ""])


def _begun(text: str) -> str:
    return text[0].lower() + text[1:]


def _head(name: str, does: str) -> str:
    return f'.\\" Made by docs/generate.py.\n.TH {_roff(name).upper()} 1\n.SH NAME\n{_roff(name)} \\- {_roff(does)}'


def _tail() -> str:
    return f".SH EXIT STATUS\n{_roff(EPILOG)}\n.SH SEE ALSO\n{_roff(SEE)}"


def _roff(text: str) -> str:
    """Escape text for troff (backslashes, leading dots); print backquoted words in bold."""
    safe = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    safe = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", safe)
    return f"\\&{safe}" if safe.startswith(".") else safe


def main() -> int:
    """Write the pages that have changed; print their names."""
    for name, text in pages().items():
        path = DOCS / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"docs/{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
