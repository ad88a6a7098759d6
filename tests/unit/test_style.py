"""tools/style.py: idioms are found in prose only, with their lines; the exit code says whether one is over."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _style():
    spec = importlib.util.spec_from_file_location("style", ROOT / "tools" / "style.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STYLE = _style()


def found(path):
    pieces = list(STYLE.prose(path))
    return [(idiom.name, line) for idiom in STYLE.IDIOMS for _, line, _ in STYLE.hits(idiom, pieces)]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Nobody waits", "nobody / somebody / whoever / whom"),
        ("that they know whom", "nobody / somebody / whoever / whom"),
        ("It ends. What remains is kept", "What ... as subject"),
        ("refused where it is open", "where for if / when"),
        ("the block behind it", "behind"),
        ("the footer stands there", "stands / lies"),
        ("as the log tells", "is told / is said / tells"),
        ("the caller is told", "is told / is said / tells"),
    ],
)
def test_each_idiom_is_found(tmp_path, text, name):
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{text}\n")
    assert found(page) == [(name, 3)]


@pytest.mark.parametrize(
    "text",
    ["the folder where SRs are mounted", "what remains is kept", "the following lines", "she told us", "a somebodys"],
)
def test_plain_words_are_no_idiom(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(f"{text}\n")
    assert found(page) == []


def test_code_comments_and_targets_of_links_are_no_prose_in_markdown(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```\nbehind\n```\n\n~~~ sh\nstands\n~~~\n\n"
        "`behind` [the end](behind.md) <!-- it lies\nbehind -->\n\nit lies here\n"
    )
    assert found(page) == [("stands / lies", 12)]


def test_docstrings_and_comments_are_the_prose_of_python(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        '"""Nobody."""\n\nNAME = "behind"  # it lies\n\n\n'
        'def behind():\n    """Say it.\n\n    As the log tells.\n    """\n'
    )
    assert sorted(found(module)) == [
        ("is told / is said / tells", 9),
        ("nobody / somebody / whoever / whom", 1),
        ("stands / lies", 3),
    ]


def run(capsys, *words):
    code = STYLE.main([str(word) for word in words])
    return code, capsys.readouterr().out


def test_exit_code_is_1_if_one_of_several_paths_is_over(tmp_path, capsys):
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "page.md").write_text("word " * 2501 + "behind\n")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "page.md").write_text("word " * 2400 + "behind\n")
    assert run(capsys, tmp_path / "good")[0] == 0
    code, out = run(capsys, tmp_path / "good", tmp_path / "bad")
    assert code == 1
    assert out.count("over") == 1


def test_skipped_folders_are_not_counted(tmp_path, capsys):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "page.md").write_text("behind\n")
    (tmp_path / "page.md").write_text("fine\n")
    assert run(capsys, tmp_path)[0] == 1
    assert run(capsys, "--skip", tmp_path / "made", tmp_path)[0] == 0


def test_quiet_prints_nothing_of_a_path_within_the_bounds(tmp_path, capsys):
    (tmp_path / "good.md").write_text("fine\n")
    (tmp_path / "bad.md").write_text("behind\n")
    assert run(capsys, "--quiet", tmp_path / "good.md") == (0, "")
    code, out = run(capsys, "--quiet", tmp_path / "good.md", tmp_path / "bad.md")
    assert code == 1
    assert out.startswith(f"{tmp_path / 'bad.md'}: ")


def test_show_prints_file_line_and_text(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("fine\n\nthe block behind it\n")
    code, out = run(capsys, "--show", page)
    assert code == 1
    assert f"{page}:3: the block behind it" in out


def test_a_path_without_prose_is_a_mistake(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        STYLE.main([str(tmp_path / "missing")])
    assert ended.value.code == 2
    assert "no folder" in capsys.readouterr().err
