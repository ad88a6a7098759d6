"""Render undo journals as text: the change, its time, the disk, and the command that puts it back. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from smfix.report.escape import command, printable
from smfix.report.layout import counted, moment, row, verbatim
from smfix.report.next_steps import command_line
from smfix.report.text import edit_words, named, result
from smfix.values import JournalRecord, Pruned, Pruning, Status, TreatedImage, Write


def none_in(folder: str) -> str:
    """Say that `folder` holds no journal. Another folder may, so this does not say that nothing was changed."""
    return f"No journal in {printable(folder)} (--journal-dir names another)."


def listing(records: Sequence[JournalRecord], folder: str) -> str:
    """List the journals of `folder`, oldest first, in two lines each."""
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
    """Return the time to the second; JSON has the microseconds."""
    return moment(None if record.created is None else record.created.replace(microsecond=0))


def _taken(records: Sequence[JournalRecord]) -> str:
    return counted(disk_use(records), "byte")


def disk_use(records: Sequence[JournalRecord]) -> int:
    """Return the sum of the journals' file sizes in bytes, as far as they are known."""
    return sum(record.bytes or 0 for record in records)


def detail(record: JournalRecord) -> str:
    """Return everything in one journal but the bytes themselves."""
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
        lines.append(verbatim("undo", command_line(record.undo)))
    return "\n".join(lines)


def proposal(record: JournalRecord) -> str:
    """Describe an undo, before the question."""
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
    """Return the result of an undo, in the words of an undo; the JSON has the statuses of a repair."""
    value = image.outcome
    words = _UNDO.get(value.status)
    done = result(value) if words is None else f"{words}: {value.message.removeprefix('the repair was undone: ')}"
    lines = [verbatim("", image.path).strip(), *named(image.names, sr=True), row("result", done)]
    lines += [row("journal", one.message) for one in value.recovered]
    lines += [verbatim("next", command_line(step)) for step in value.next]
    return "\n".join(lines)


_UNDO = {Status.ROLLED_BACK: "undone", Status.WOULD_REPAIR: "would be undone"}


# --------------------------------------------------------------------------- pruning


def prune_proposal(going: Sequence[Pruned]) -> str:
    """Describe a deletion of journals, before the question."""
    records = [one.record for one in going]
    lines = [f"{record.id}  {record.state:<11} {_made(record)}  {printable(record.path or '')}" for record in records]
    lines.append(
        f"{counted(len(records), 'journal')}, {_taken(records)}, would be deleted; their repairs cannot be undone "
        "afterwards."
    )
    return "\n".join(lines)


def pruned(done: Sequence[Pruned], folder: str) -> str:
    """Return the result for each journal of `folder`, and the sum."""
    if not done:
        return none_in(folder)
    lines = []
    for one in done:
        lines.append(f"{one.record.id}  {one.record.state:<11} {one.action.value}")
        if words := one.message or one.why:
            lines.append(row("why", words))
    by = {action: [one.record for one in done if one.action is action] for action in Pruning}
    sums = [
        f"{counted(len(by[action]), 'journal')} {words}, {_taken(by[action])}" for action, words in _DONE if by[action]
    ]
    return "\n".join([*lines, "", "; ".join(sums) + "."])


_DONE = (
    (Pruning.PRUNED, "deleted"),
    (Pruning.WOULD_PRUNE, "would be deleted"),
    (Pruning.FAILED, "could not be deleted"),
    (Pruning.KEPT, "kept"),
)
