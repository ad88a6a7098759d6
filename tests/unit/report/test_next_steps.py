"""How a report of checked images goes on."""

from __future__ import annotations

from report_values import CLOCK, LOST_FOOTER
from smfix.report import next_steps
from smfix.values import CheckedImage, Disposition, NextStep, StepKind, Verdict
from steps import as_it_is

HOPELESS = LOST_FOOTER._replace(code="VHD303", disposition=Disposition.REPORT)


def image(name: str, *findings, parent: str | None = None) -> CheckedImage:
    verdict = Verdict.INVALID if findings else Verdict.VALID
    return CheckedImage(f"/sr/{name}.vhd", verdict, findings=findings, parent=parent and f"/sr/{parent}.vhd")


def told(*images: CheckedImage) -> list[str]:
    return next_steps.suggest(images, lambda paths: as_it_is(f"repair {' '.join(paths)}"), 2).splitlines()


def test_sound_images_lead_nowhere():
    assert told(image("a", parent="b"), image("b", parent="c")) == []
    assert told(image("a", parent="b"), image("b", parent="a")) == []


def test_where_a_chain_breaks():
    assert told(image("a", parent="b"), image("b", parent="c"), image("c", LOST_FOOTER)) == [
        "The chain of a.vhd breaks at",
        "   /sr/c.vhd",
        "What a repair would write, and who must agree to it:",
        "   repair /sr/c.vhd",
    ]
    ring = (image("x", parent="a"), image("a", parent="b"), image("b", parent="a"))
    assert told(*ring) == []


def test_many_are_named_by_their_folder():
    assert told(*(image(name, LOST_FOOTER, CLOCK) for name in "abc"))[-1] == "   repair /sr"


def test_what_may_stop_a_plan_is_no_promise():
    assert told(image("a", LOST_FOOTER, HOPELESS))[0] == (
        "What a repair would write, if anything, and who must agree to it:"
    )
    chain = HOPELESS._replace(code="VHD501")
    assert told(image("a", LOST_FOOTER, chain))[0] == "What a repair would write, and who must agree to it:"


def test_what_has_no_repair_is_explained():
    assert told(image("a", HOPELESS, CLOCK)) == [
        "Nothing would be written; what to do instead:",
        "   smfix explain VHD303",
    ]
    assert told(image("a", HOPELESS), image("b", LOST_FOOTER))[-2:] == [
        "Nothing would be written to 1 image; what to do instead:",
        "   smfix explain VHD303",
    ]


def test_every_step_has_a_command_line():
    for kind in StepKind:
        assert next_steps.command_line(NextStep(kind, ("x y",), ("--yes",)))
    assert next_steps.command_line(NextStep(StepKind.SCAN_SR, ("a b",))) == "xe sr-scan 'uuid=a b'"
    assert next_steps.command_line(NextStep(StepKind.UNDO, ("1",), ("--yes",))) == "smfix undo 1 --yes"
    assert next_steps.command_line(NextStep(StepKind.TEXT, ("echo $HOME",))) == "echo $HOME"


def test_a_disk_is_found_by_its_digits():
    listed = "params=uuid,sr-uuid,name-label"
    by_digits = NextStep(StepKind.FIND_VDI_BY_DIGITS, ("5b0c1a7e", "sr"))
    assert next_steps.command_line(by_digits) == f"xe vdi-list sr-uuid=sr {listed} | grep -A2 ': 5b0c1a7e'"
    assert next_steps.command_line(NextStep(StepKind.FIND_VDI_BY_DIGITS, ("",))) == f"xe vdi-list {listed}"


def test_steps_of_one_kind_are_joined_unless_their_options_differ():
    steps = [NextStep(StepKind.CHECK, (path,)) for path in ("/a", "/b", "/a")]
    other = NextStep(StepKind.CHECK, ("/c",), ("--parents",))
    undo = [NextStep(StepKind.UNDO, (name,)) for name in "12"]
    joined = [NextStep(StepKind.CHECK, ("/a", "/b")), other, *undo]
    assert next_steps.joined([*steps, other, *undo, undo[0]]) == joined
