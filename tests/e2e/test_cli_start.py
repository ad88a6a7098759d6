"""The start, the errors and the terminal: what every command shares."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time

import pytest

from smfix import __version__
from smfix.cli import app, check, console, repair
from smfix.errors import WriteFailed
from world import BASE, LEAF, OTHER, ROOT, SR, failed, make_world

SMFIX = [sys.executable, "-m", "smfix"]
COMMANDS = ["from-log", "check", "repair", "show", "journal", "undo", "explain", "demo"]


@pytest.fixture
def world(tmp_path, capsys, monkeypatch):
    return make_world(tmp_path, capsys, monkeypatch)


def python(program: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, *options, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout + done.stderr


# --------------------------------------------------------------------------- start


def test_version_needs_no_typer():
    program = (
        "import os, sys; sys.argv = ['smfix', '--version']\n"
        "os._exit = lambda code: print(code, sorted({'typer', 'rich'} & set(sys.modules)))\n"
        "from smfix.__main__ import main\n"
        "main()"
    )
    assert python(program) == f"smfix {__version__}\n0 []\n"
    done = subprocess.run([*SMFIX, "--version"], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == f"smfix {__version__}\n"


def test_the_option_says_the_same(capsys):
    assert app.run(["--version", "check"]) == 0
    assert capsys.readouterr().out == f"smfix {__version__}\n"


def test_the_command_line_is_lazy():
    loaded = python("import smfix.cli, sys; print(sorted({'rich', 'dateutil', 'smfix.demo'} & set(sys.modules)))")
    assert loaded == "[]\n"


def test_a_command_is_lazy_too(world):
    world.damaged()
    world.smlog(failed())
    program = (
        "import sys\nfrom smfix.cli import app\n"
        f"app.run(['from-log', {str(world.log)!r}, '--sr-mount', {str(world.mount)!r}])\n"
        "print(sorted({'rich', 'dateutil', 'logging'} & set(sys.modules)), file=sys.stderr)"
    )
    assert python(program).endswith("[]\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command, capsys):
    assert app.run([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"Usage: smfix {command}" in out
    assert "\x1b" not in out
    if command not in ("explain", "demo"):
        assert "Exit codes add up" in out


def test_help_states_the_contract(capsys):
    wanted = {
        "from-log": "--sr-mount --yes --dry-run --confirm --journal-dir --since --until --tz --year --json",
        "check": "--parents --sr-mount --json",
        "repair": "--sr-mount --yes --dry-run --confirm --journal-dir --json",
        "show": "--hex --sr-mount --json",
        "journal": "--journal-dir --json",
        "undo": "--yes --dry-run --journal-dir --json",
        "explain": "--json",
        "demo": "--keep",
    }
    for command, options in wanted.items():
        app.run([command, "--help"])
        out = capsys.readouterr().out
        for option in options.split():
            assert re.search(rf"{option}\b", out), (command, option)


def test_what_there_is_not_is_a_usage_error(capsys):
    assert app.run(["no-such-command"]) == 16
    assert app.run(["show", "x", "--no-such-option"]) == 16
    assert "smfix: No such command 'no-such-command'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "word", "offers"), [("smfix re", 1, ["repair"]), ("smfix check --p", 2, ["--parents"])]
)
def test_the_shell_can_complete(line, word, offers):
    asked = {**os.environ, "_SMFIX_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(word)}
    done = subprocess.run(SMFIX, env=asked, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == offers


def test_no_command_is_the_help_and_a_usage_error(capsys):
    assert app.run([]) == 16
    err = capsys.readouterr().err
    assert "Usage: smfix" in err
    assert "from-log" in err


def test_explain(capsys):
    assert app.run(["explain"]) == 0
    assert capsys.readouterr().out.startswith("VHD101  SAFE")
    assert app.run(["explain", "vhd101"]) == 0
    assert "   why " in capsys.readouterr().out
    assert app.run(["explain", "VHD101", "--json"]) == 0
    assert app.run(["explain", "VHD101", "VHD103"]) == 0
    assert "\n\nVHD103  " in capsys.readouterr().out
    assert app.run(["explain", "VHD999"]) == 16
    assert capsys.readouterr().err == "smfix: there is no finding 'VHD999'; `smfix explain` lists them\n"


# --------------------------------------------------------------------------- errors


def test_no_traceback_ever(world, monkeypatch):
    monkeypatch.setattr(check, "check_images", lambda *_, **__: 1 / 0)
    run = world.run("check", "/x")
    assert (run.code, run.out) == (8, "")
    assert run.err.startswith("smfix: unexpected ZeroDivisionError: division by zero; this is a bug")
    assert run.err.count("\n") == 1
    monkeypatch.setenv("SMFIX_DEBUG", "1")
    assert "Traceback" in world.run("check", "/x").err


def test_an_expected_error_has_its_bit(world, monkeypatch):
    def fail(*_, **__):
        raise WriteFailed("cannot write /x\x1b[2J: No space left on device")

    monkeypatch.setattr(repair, "repair_images", fail)
    run = world.run("repair", "/x")
    assert (run.code, run.out) == (8, "")
    assert run.err == "smfix: cannot write /x\\x1b[2J: No space left on device\n"


def test_an_interrupt_is_32(world, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "check_images", interrupt)
    run = world.run("check", "/x")
    assert (run.code, run.out) == (32, "")
    assert run.err.startswith("smfix: interrupted")


@pytest.mark.parametrize("error", [KeyboardInterrupt, app.typer.Abort])
def test_an_interrupt_before_any_command_is_32_as_well(monkeypatch, error):
    class Command:
        def main(self, **_):
            raise error

    monkeypatch.setattr(app.typer.main, "get_command", lambda _: Command())
    assert app.run(["check"]) == 32


def test_typers_own_word_for_an_interrupt(monkeypatch):
    class Command:
        def main(self, **_):
            return 130

    monkeypatch.setattr(app.typer.main, "get_command", lambda _: Command())
    assert app.run(["check"]) == 32


def test_a_reader_that_goes_away_is_quiet(world):
    for number in range(200):
        world.put(b"x", f"{number:08x}-0000-4000-8000-000000000000")
    with world.start("check", world.sr) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 4


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_below_stdout_is_one_line(world):
    path = world.damaged()
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*SMFIX, "check", str(path)], stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT
        )
    assert done.returncode == 8
    assert done.stderr == (
        "smfix: cannot write the report to standard output: No space left on device; "
        "`smfix journal` lists what was changed\n"
    )


def test_a_terminal_that_knows_no_unicode(world):
    path = world.sr / "café.vhd"
    path.write_bytes(b"x")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([*SMFIX, "check", str(path)], capture_output=True, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 4
    assert b"caf\\xe9.vhd" in done.stdout


def test_names_that_are_no_utf8(world):
    path = os.fsencode(world.sr) + b"/\xff\x1b.vhd"
    with open(path, "wb") as file:
        file.write(b"x")
    done = subprocess.run([*SMFIX, "check", path], capture_output=True, check=False, cwd=ROOT)
    assert done.returncode == 4
    assert b"/\\xff\\x1b.vhd\n" in done.stdout


# --------------------------------------------------------------------------- on a terminal


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, words: list[str], columns: int = 0) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            termios.tcsetwinsize(0, (50, columns))
            os.chdir(ROOT)
            os.execv(words[0], words)
        self.seen = ""

    def until(self, text: str, seconds: float = 30) -> str:
        """Read until `text` was printed; then everything seen so far."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} was not printed: {self.seen!r}"
            try:
                self.seen += os.read(self.fd, 65536).decode()
            except OSError:
                raise AssertionError(f"{text!r} was not printed: {self.seen!r}") from None
        return self.seen

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def end(self) -> int:
        """The exit code; what was printed meanwhile is in `seen`."""
        while True:
            try:
                piece = os.read(self.fd, 65536)
            except OSError:
                break
            if not piece:
                break
            self.seen += piece.decode()
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.parametrize(("columns", "widest"), [(0, 80), (60, 60), (200, 200)])
def test_a_report_is_as_wide_as_its_terminal(world, columns, widest):
    world.damaged()
    verdict = f"/var/run/sr-mount/{SR}/{BASE}.vhd appears invalid; dumping metadata"
    world.smlog(failed())
    terminal = Terminal([*SMFIX, "from-log", str(world.log), "--dry-run", *world.options("from-log")], columns)
    assert terminal.end() == 4
    quoted = terminal.seen.partition("   log ")[2].partition("\r\n\r\n")[0].splitlines()
    assert 40 < max(len(line) for line in quoted if str(world.log) not in line) <= widest
    assert any(verdict in line for line in quoted) == (columns == 200)


@pytest.mark.parametrize(
    ("answer", "code"),
    [("y\n", 1), ("YES\n", 1), ("\n", 4), ("n\n", 4), ("maybe\n\n", 4), ("q\n", 4), ("?\ny\n", 1), ("\x04", 4)],
)
def test_a_plan_is_shown_and_asked_about(world, answer, code):
    path = world.damaged()
    before = path.read_bytes()
    terminal = Terminal([*SMFIX, "repair", str(path), *world.options("repair")])
    shown = terminal.until("Write this? [y/N/?]")
    assert "VHD101" in shown
    assert "512 bytes at offset" in shown
    assert path.read_bytes() == before
    terminal.type(answer)
    assert terminal.end() == code
    assert (path.read_bytes() != before) is (code == 1)
    if code == 4:
        assert "nothing was written" in terminal.seen
    assert ("'maybe' is not an answer" in terminal.seen) is answer.startswith("maybe")
    assert ("write it: journalled before" in terminal.seen) is (answer[0] in "m?")


TWO = (OTHER, BASE)


def two_damaged(world, *words: str) -> Terminal:
    paths = [str(world.damaged(vdi)) for vdi in TWO]
    return Terminal([*SMFIX, "repair", *paths, *words, *world.options("repair")])


@pytest.mark.parametrize(
    ("answers", "repaired"), [("yn", 1), ("yy", 2), ("a", 2), ("q", 0), ("n\x04", 0), ("ya", 2), ("yq", 1)]
)
def test_of_several_disks_all_or_none_of_the_rest_can_be_meant(world, answers, repaired):
    terminal = two_damaged(world)
    for number, answer in enumerate(answers, 1):
        terminal.until(f"Write this? Disk {number} of 2. [y/N/a/q/?] ")
        terminal.type(answer if answer == "\x04" else f"{answer}\n")
    assert terminal.end() == (1 if repaired else 0) | (4 if repaired < 2 else 0)
    report = terminal.seen.rpartition("[y/N/a/q/?] ")[2]
    assert ("What is left, and what to type next:" in report) is (repaired < 2)
    sound = [world.run("check", world.path(vdi)).code == 0 for vdi in TWO]
    assert sum(sound) == repaired


def test_what_became_of_a_disk_is_said_before_the_next_question(world):
    terminal = two_damaged(world)
    terminal.until("Disk 1 of 2.")
    terminal.type("y\n")
    shown = terminal.until("Disk 2 of 2.").partition("Disk 1 of 2.")[2]
    assert "result   repaired and verified" in shown
    assert "undo     smfix undo " in shown
    terminal.type("\x03")
    assert terminal.end() == 32
    report = terminal.seen.partition("smfix: interrupted: nothing more is written")[2]
    assert "repaired and verified" in report
    assert "nothing was written: interrupted before an answer" in report
    assert (
        report.strip().splitlines()[-1]
        == "Interrupted: nothing was written after that. The same command goes on from here."
    )


@pytest.mark.parametrize(
    ("answer", "asked", "others"),
    [
        ("\x03", "interrupted before an answer", "not asked: interrupted"),
        ("\x04", "interrupted before an answer", "not asked: interrupted"),
        ("q\n", "the answer was not yes", "not asked: the rest was left"),
    ],
)
def test_who_was_never_asked_did_not_say_no(world, answer, asked, others):
    terminal = two_damaged(world)
    terminal.until("Disk 1 of 2.")
    terminal.type(answer)
    terminal.end()
    told = [line for line in terminal.seen.splitlines() if "nothing was written: " in line]
    assert [line.partition("nothing was written: ")[2].strip() for line in told] == [asked, others]


def test_a_disk_between_two_questions_says_why_it_is_skipped(world):
    world.put(world.image())
    paths = [str(world.path()), *(str(world.damaged(vdi)) for vdi in (OTHER, LEAF))]
    terminal = Terminal([*SMFIX, "repair", *paths, *world.options("repair")])
    assert "   Disk 1: 1d994938 not asked: valid" in terminal.until("Disk 2 of 3.")
    terminal.type("\n")
    assert "   result   left as it is" in terminal.until("Disk 3 of 3.").partition("Disk 2 of 3.")[2]
    terminal.type("\x04")
    assert terminal.end() == 4
    assert terminal.seen.strip().splitlines()[-1].startswith("Interrupted: nothing was written after that")


def test_control_c_at_the_question_is_32(world):
    path = world.damaged()
    before = path.read_bytes()
    world.smlog(failed())
    terminal = Terminal([*SMFIX, "from-log", str(world.log), *world.options("from-log")])
    terminal.until("[y/N/?]")
    terminal.type("\x03")
    assert terminal.end() == 32
    assert "smfix: interrupted" in terminal.seen
    assert "1 incident: 0 repaired, 1 left." in terminal.seen
    assert "Traceback" not in terminal.seen
    assert path.read_bytes() == before


def test_an_undo_asks_too(world):
    path = world.damaged()
    before = path.read_bytes()
    name = world.run("repair", path, "--yes", "--json").json["images"][0]["outcome"]["journal"]
    after = path.read_bytes()
    for answer, code, left in (("n\n", 4, after), ("y\n", 0, before)):
        terminal = Terminal([*SMFIX, "undo", name, *world.options("undo")])
        assert "go back to what they were" in terminal.until("Put it back? [y/N/?]")
        terminal.type(answer)
        assert terminal.end() == code
        assert path.read_bytes() == left


def test_yes_and_dry_run_do_not_ask_on_a_terminal(world):
    path = world.damaged()
    terminal = Terminal([*SMFIX, "repair", str(path), "--dry-run", *world.options("repair")])
    assert terminal.end() == 4
    assert "[y/N" not in terminal.seen
    terminal = Terminal([*SMFIX, "repair", str(path), "--yes", *world.options("repair")])
    assert terminal.end() == 1
    assert "[y/N" not in terminal.seen


def test_progress_is_for_terminals_only(world, monkeypatch):
    world.smlog(failed())
    assert world.run("from-log", world.log).err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    err = world.run("from-log", world.log).err
    assert "\rsmfix: reading the log: " in err or "\r\x1b[K" in err


def test_the_first_sign_comes_before_the_imports(world):
    world.smlog(failed())
    terminal = Terminal([*SMFIX, "from-log", str(world.log), "--dry-run", *world.options("from-log")])
    assert terminal.end() == 4
    assert terminal.seen.startswith("\rsmfix: starting\x1b[K\r\x1b[K")


def test_progress_in_numbers(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    read = console.reading_meter()
    read(1, 4)
    read(2, 4)  # too soon after the one before
    read(4, 4)
    console.reading_meter()(3 << 20, 0)
    console.counting_meter("looking at the disks", "disk")(1, 8)
    assert capsys.readouterr().err == (
        "\rsmfix: reading the log: 25 %\x1b[K\r\x1b[K\rsmfix: reading the log: 3 MiB\x1b[K"
        "\rsmfix: looking at the disks: 1 of 8 disks\x1b[K"
    )
    console.redraw("")


def test_a_follower_says_what_it_waits_for(world):
    words = [*SMFIX, "from-log", "-f", str(world.log), "--state-dir", str(world.folder / "follow")]
    terminal = Terminal([*words, *world.options("from-log")])
    terminal.until(f"smfix: following {world.log}, which is not there yet; Ctrl-C ends it")
    terminal.type("\x03")
    assert terminal.end() == 0


def test_what_is_said_stands_in_a_line_of_its_own(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    console.redraw("smfix: reading: 1 of 2 files")
    console.say("smfix: a.json: it is empty")
    console.say("smfix: b.json: it is empty")
    assert capsys.readouterr().err == (
        "\rsmfix: reading: 1 of 2 files\x1b[K\r\x1b[Ksmfix: a.json: it is empty\nsmfix: b.json: it is empty\n"
    )


def test_a_signal_in_the_middle_of_a_repair_leaves_it_recoverable(world):
    path = world.damaged(BASE)
    with world.start("repair", path, "--yes") as process:
        time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert world.run("repair", path, "--yes").code in (0, 1)
    assert world.run("check", path).code == 0


# --------------------------------------------------------------------------- streams that are closed or full


def shell(line: str, *words: object) -> subprocess.CompletedProcess[str]:
    """`line` of a shell, where ``"$@"`` is smfix with `words`."""
    argv = ["sh", "-c", line, "sh", *SMFIX, *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing(world, closed):
    path = world.damaged()
    run = shell(f'"$@" {closed}', "repair", path, "--yes", *world.options("repair"))
    assert (run.returncode, run.stderr) == (1, "")
    assert path.read_bytes() == world.image()[:-512] + b"x" * 512 + world.image()[-512:]
    assert shell(f'"$@" {closed}', "--version").returncode == 0
    assert shell(f'"$@" {closed}', "check", "--help").returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("words", [["--version"], ["--help"], ["check", "--help"], ["explain", "--json"]])
def test_a_full_disk_below_the_help_is_no_traceback(words):
    run = shell('"$@" > /dev/full', *words)
    assert run.returncode == 8
    assert len(run.stderr.splitlines()) <= 1
    assert "Traceback" not in run.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("words", [[], ["check"], ["nonsense"]])
def test_a_full_disk_below_stderr_keeps_the_exit_code(words):
    assert shell('"$@" 2> /dev/full', *words).returncode == 16


def test_a_reader_of_the_help_that_goes_away(monkeypatch):
    class Command:
        def main(self, **_):
            raise SystemExit(1)

    monkeypatch.setattr(app.typer.main, "get_command", lambda _: Command())
    assert app.run(["--help"]) == 0


def test_an_interrupt_while_the_commands_are_imported():
    program = (
        "import os, sys; sys.argv = ['smfix', 'check']\n"
        "os._exit = print\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'typer':\n            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from smfix.__main__ import main\n"
        "main()"
    )
    assert python(program) == "32\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("x")])
def test_json_is_a_document_however_it_ends(world, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(check, "check_images", fail)
    run = world.run("check", "/x", "--json")
    assert run.json["schema"] == "smfix.error/1"
    assert run.json["exit"] == run.code
    assert run.err == f"smfix: {run.json['message']}\n"


def test_a_name_like_an_option_can_be_pasted(world, monkeypatch, capsys):
    monkeypatch.chdir(world.sr)
    (world.sr / "--yes").write_bytes(world.image()[:-512])
    assert app.run(["repair", *world.options("repair"), "--", "--yes"]) == 4
    assert f"smfix repair {world.sr}/--yes --yes --sr-mount " in capsys.readouterr().out
    monkeypatch.chdir(world.folder)
    world.smlog(failed()).rename("-log")
    world.damaged()
    assert app.run(["from-log", *world.options("from-log"), "--", "-log"]) == 4
    assert f"smfix from-log {world.folder}/-log --yes --sr-mount " in capsys.readouterr().out
