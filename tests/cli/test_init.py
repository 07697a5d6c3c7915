"""`init`: profiles that are right as they are, and files that stay as they are."""

from __future__ import annotations

import os
import tomllib

import pytest

from distillctl import ProfileError
from distillctl.cli import run
from distillctl.cli.init import TEMPLATES, write_template
from distillctl.plugin.registry import Registry
from distillctl.profile.reading import load


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_is_right(name, capsys):
    assert run(["init", name]) == 0
    assert capsys.readouterr().out.startswith(f"wrote {name}.toml and, for its teacher, {name}_teacher.toml\n")
    registry = Registry.load()
    student = load(f"{name}.toml", registry=registry)
    teacher = load(f"{name}_teacher.toml", registry=registry)
    assert student.teacher.table.profile.name == f"{name}_teacher.toml"
    assert teacher.teacher is None
    assert (student.dataset.spec, student.dataset.options) == (teacher.dataset.spec, teacher.dataset.options)
    for text in (student.text, teacher.text):
        assert text.count(b"#") >= 1
        assert b"@" not in text
        assert tomllib.loads(text.decode())


def test_quickstart_is_the_default(tmp_path):
    assert run(["init"]) == 0
    assert sorted(os.listdir()) == ["quickstart.toml", "quickstart_teacher.toml"]


def test_out(tmp_path, capsys):
    (tmp_path / "deep").mkdir()
    assert run(["init", "quickstart", "--out", "deep/mine.toml"]) == 0
    assert sorted(os.listdir("deep")) == ["mine.toml", "mine_teacher.toml"]
    assert load("deep/mine.toml", registry=Registry.load()).teacher.table.profile == tmp_path / "deep" / "mine_teacher.toml"


def test_next_command_can_be_pasted(tmp_path, capsys):
    (tmp_path / "my profiles").mkdir()
    assert run(["init", "--out", "my profiles/é.toml"]) == 0
    assert "\nnext: distillctl check 'my profiles/é.toml' && distillctl train 'my profiles/é.toml'\n" in capsys.readouterr().out


@pytest.mark.parametrize("existing", ["quickstart.toml", "quickstart_teacher.toml"])
def test_never_over_an_existing_file(tmp_path, capsys, existing):
    (tmp_path / existing).write_text("mine")
    assert run(["init"]) == 2
    assert "is there already and stays as it is" in capsys.readouterr().err
    assert os.listdir() == [existing]
    assert (tmp_path / existing).read_text() == "mine"


def test_never_through_a_dangling_link(tmp_path):
    (tmp_path / "quickstart.toml").symlink_to("elsewhere.toml")
    with pytest.raises(ProfileError, match="is there already"):
        write_template("quickstart", tmp_path / "quickstart.toml")


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["init", "quikstart"], "no template is called `quikstart`", 2),
        (["init", "--out", "file.txt"], "a profile is a file that ends in `.toml`", 2),
        (["init", "--out", "none/file.toml"], "cannot be written: no such file or directory", 3),
    ],
)
def test_wrong_ones(capsys, arguments, message, code):
    assert run(arguments) == code
    assert message in capsys.readouterr().err
    assert os.listdir() == []
