"""What is made before the trainings, and the marks that say from what."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lung_d2.ablation.plan import Made, Plan
from lung_d2.ablation.steps import Preparation, Workshop
from lung_d2.errors import ConfigError, LungD2Error

TOUCH = "import sys; from pathlib import Path; [Path(name).write_text('new') for name in sys.argv[1:]]"
BOTH = [["touch.py", "first_{split}.pth", "second_{split}.pth", "{train}.log"]]
PHANTOMS = [["train.py", "{first}", "--length", "6"]]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "split.csv").write_text("patient,split\na,train\nb,train\nc,val\n")
    (tmp_path / "touch.py").write_text(TOUCH)
    (tmp_path / "fail.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def workshop(source: Path, split: str = "0", phantoms: list[list[str]] = PHANTOMS) -> Workshop:
    starts = {name: Made(f"{name}_{{split}}.pth", BOTH) for name in ("first", "second")}
    starts["phantoms"] = Made("out/phantoms_{split}.pth", phantoms, needs=["first"])
    plan = Plan(configs="", base="", dataset="tiny", prepare=[], folds=[["a"], ["b"]], arms={}, starts=starts)
    return Workshop(plan, split, source)


def test_mark_holds_commands_split_and_what_is_needed(source):
    lines = workshop(source).step("phantoms").mark.splitlines()
    first = "first: touch.py first_0.pth second_0.pth tiny_fold0_train.log"
    assert lines[:2] == ["train.py first_0.pth --length 6", first]
    assert len(lines) == 3
    assert re.fullmatch("split [0-9a-f]{16}", lines[2])  # a digest, and no patient


def test_what_is_made_together_is_marked_together(source):
    workshop(source).step("first").carry_out(source)
    for name in ("first", "second"):
        step = workshop(source).step(name)
        assert not step.is_due
        assert not step.is_unmarked
        assert step.mark_file.name == f"{name}_0.pth.made"


def test_what_failed_is_marked_and_due(source):
    for script, other in (("fail.py", "touch.py"), ("touch.py", "fail.py")):
        step = workshop(source, phantoms=[[script, "--resume"]]).step("phantoms")
        if script == "fail.py":
            with pytest.raises(LungD2Error, match="exit status 3"):
                step.carry_out(source)
            assert step.is_due
        else:  # what was begun is not taken up by another command
            with pytest.raises(ConfigError, match=f"made from {other}; expected {script}"):
                assert step.is_due


def test_what_needs_something_else_now_is_refused(source):
    step = workshop(source).step("phantoms")
    step.result.parent.mkdir()
    step.result.touch()
    step.mark_file.write_text(step.mark)
    assert not workshop(source).step("phantoms").is_due
    (source / "split.csv").write_text("patient,split\na,train\nb,train\nd,train\nc,val\n")
    with pytest.raises(ConfigError, match=r"phantoms_0\.pth: made from split .*; delete it, phantoms_0\.pth\.made and"):
        assert workshop(source).step("phantoms").is_due


def test_value_of_a_command_is_named_with_its_key(source):
    step = workshop(source).step("phantoms")
    step.result.parent.mkdir()
    step.mark_file.write_text(step.mark)
    with pytest.raises(ConfigError, match="made from --length 6; expected --length 7"):
        assert workshop(source, phantoms=[["train.py", "{first}", "--length", "7"]]).step("phantoms").is_due


@pytest.mark.parametrize(("name", "left"), [("second", "first_0.pth"), ("phantoms", "out/last_checkpoint")])
def test_what_was_begun_without_a_mark_is_not_taken_up(source, name, left):
    Path("out").mkdir()
    Path(left).touch()
    with pytest.raises(
        ConfigError, match=rf"{name}_0\.pth: not there, but {Path(left).name} is, and nothing says what made that"
    ):
        assert workshop(source).step(name).is_due


def test_start_without_a_mark_is_taken_as_it_is(source):
    Path("first_0.pth").touch()
    step = workshop(source).step("first")
    assert step.is_unmarked
    assert not step.is_due


def test_preparation_marks_what_has_ended(source):
    failing = Preparation((("fail.py",),), source / "tiny.prepared", "from this")
    with pytest.raises(LungD2Error):
        failing.carry_out(source)
    assert failing.is_due
    Preparation((("touch.py", "data.json"),), source / "tiny.prepared", "from this").carry_out(source)
    assert not failing.is_due
    assert Preparation((), source / "tiny.prepared", "from that").is_due
