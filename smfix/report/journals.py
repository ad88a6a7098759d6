"""Undo journals as text: what was changed, when, in which disk, and how to put it back. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from smfix.report.escape import command, printable
from smfix.report.layout import counted, moment, row, verbatim
from smfix.report.text import edit_words, named, result
from smfix.values import JournalRecord, Pruned, Pruning, Status, TreatedImage, Write


def none_in(folder: str) -> str:
    """That `folder` holds no journal; another may, so nothing is said of what was changed."""
    return f"No journal in {printable(folder)} (--journal-dir names another)."


def listing(records: Sequence[JournalRecord], folder: str) -> str:
    """Two lines for each journal of `folder`, oldest first."""
    if not records:
        return none_in(folder)
    lines = []
    for record in records:
        codes = ", ".join(dict.fromkeys(code for code, _ in record.fixes))
        made = "damaged" if record.damage is not None else _made(record)
        lines.append(f"{record.id}  {record.state:<11} {made}  {codes}".rstrip())
        lines.append(verbatim("path", record.path or record.file))
    lines += ["", f"{counted(len(records), 'journal')}, {_taken(records)}. More: smfix journal ID"]
    return "\n".join(lines)


def _made(record: JournalRecord) -> str:
    """When, to the second: JSON has the rest."""
    return moment(None if record.created is None else record.created.replace(microsecond=0))


def _taken(records: Sequence[JournalRecord]) -> str:
    return counted(disk_use(records), "byte")


def disk_use(records: Sequence[JournalRecord]) -> int:
    """The bytes of the journals' files, as far as they are known."""
    return sum(record.bytes or 0 for record in records)


def detail(record: JournalRecord) -> str:
    """Everything one journal holds, less the bytes themselves."""
    lines = [f"{record.id}  [{record.state}]", verbatim("file", record.file)]
    if record.damage is not None:
        return "\n".join([*lines, row("damaged", record.damage)])
    lines.append(verbatim("path", record.path or ""))
    lines += [row(label, value) for label, value in (("VDI", record.vdi), ("SR", record.sr)) if value]
    lines.append(row("made", _made(record)))
    if record.bytes is not None:
        lines.append(row("takes", counted(record.bytes, "byte")))
    if record.command:
        lines.append(verbatim("by", command(record.command)))
    lines += [
        row("fixed" if number == 0 else "", f"{code} {message}") for number, (code, message) in enumerate(record.fixes)
    ]
    lines += [row("wrote" if number == 0 else "", edit_words(edit)) for number, edit in enumerate(record.edits)]
    if record.old_size is not None and record.new_size is not None:
        lines.append(row("size", f"{record.old_size:,} to {counted(record.new_size, 'byte')}"))
    if record.lost_sectors:
        lines.append(row("lost", counted(record.lost_sectors, "guest sector")))
    if record.undo is not None:
        lines.append(verbatim("undo", record.undo))
    return "\n".join(lines)


def proposal(record: JournalRecord) -> str:
    """What a person is asked about before an undo."""
    bytes_back = sum(len(edit.data) for edit in record.edits if isinstance(edit, Write))
    lines = [
        verbatim("", record.path or record.file).strip(),
        row("undo", f"the repair of {_made(record)}, journal {record.id}"),
        row("plan", f"{counted(bytes_back, 'byte')} that were written go back to what they were"),
    ]
    if record.old_size is not None and record.old_size != record.new_size:
        lines.append(row("", f"the file gets its old size, {counted(record.old_size, 'byte')}"))
    if record.newer is not None:
        lines.append(row("lost", record.newer))
    return "\n".join(lines)


def undone(image: TreatedImage) -> str:
    """What became of an undo, in its own words: the JSON has the repair's."""
    value = image.outcome
    words = _UNDO.get(value.status)
    said = result(value) if words is None else f"{words}: {value.message.removeprefix('the repair was undone: ')}"
    lines = [verbatim("", image.path).strip(), *named(image.names, sr=True), row("result", said)]
    lines += [row("journal", one.message) for one in value.recovered]
    lines += [verbatim("next", step) for step in value.next]
    return "\n".join(lines)


_UNDO = {Status.ROLLED_BACK: "undone", Status.WOULD_REPAIR: "would be undone"}


# --------------------------------------------------------------------------- pruning


def prune_proposal(going: Sequence[Pruned]) -> str:
    """What a person is asked about before journals are thrown away."""
    records = [one.record for one in going]
    lines = [f"{record.id}  {record.state:<11} {_made(record)}  {printable(record.path or '')}" for record in records]
    lines.append(
        f"{counted(len(records), 'journal')}, {_taken(records)}, would be thrown away; what they record cannot be "
        "undone afterwards."
    )
    return "\n".join(lines)


def pruned(done: Sequence[Pruned], folder: str) -> str:
    """What became of each journal of `folder`, and the sum."""
    if not done:
        return none_in(folder)
    lines = []
    for one in done:
        lines.append(f"{one.record.id}  {one.record.state:<11} {one.action.value}")
        if words := one.message or one.why:
            lines.append(row("why", words))
    by = {action: [one.record for one in done if one.action is action] for action in Pruning}
    told = [
        f"{counted(len(by[action]), 'journal')} {words}, {_taken(by[action])}" for action, words in _DONE if by[action]
    ]
    return "\n".join([*lines, "", "; ".join(told) + "."])


_DONE = (
    (Pruning.PRUNED, "thrown away"),
    (Pruning.WOULD_PRUNE, "would be thrown away"),
    (Pruning.FAILED, "could not be thrown away"),
    (Pruning.KEPT, "kept"),
)
