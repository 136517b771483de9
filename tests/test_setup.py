"""Setting up: the scripts parse, pins and ranges agree, and a missing Detectron2 is told with its remedy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted([*(ROOT / "tools").glob("*.sh"), ROOT / ".ci" / "run"])
SETUP = (ROOT / "tools" / "setup.sh").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
# What a user calls first; each needs Detectron2.
NEEDS_DETECTRON2 = (
    "import lung_d2; lung_d2.load_config('configs/Base-LungCT-RCNN-FPN.yaml')",
    "import lung_d2; lung_d2.register_lung_datasets('datasets')",
    "from lung_d2 import data; data.CTDatasetMapper",
    "from lung_d2 import engine; engine.LungTrainer",
    "from lung_d2 import engine; engine.CTPredictor",
)


def declared() -> list[Requirement]:
    return [Requirement(line) for line in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"])]


def pins() -> dict[str, str]:
    lines = (ROOT / "tools" / "constraints.txt").read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_parses(script: Path) -> None:
    run = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_stops_at_the_first_failure(script: Path) -> None:
    assert "set -euo pipefail" in script.read_text("utf-8")


def test_ci_entry_is_executable() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_pins_are_one_version_each() -> None:
    lines = (ROOT / "tools" / "constraints.txt").read_text("utf-8").splitlines()
    named = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in named)
    assert len(pins()) == len(named)


@pytest.mark.parametrize("need", declared(), ids=lambda need: need.name)
def test_pin_is_within_the_declared_range(need: Requirement) -> None:
    assert pins()[canonicalize_name(need.name)] in need.specifier


def test_both_opencv_builds_have_one_version() -> None:
    assert pins()["opencv-python-headless"] == pins()["opencv-python"]


def test_transitive_needs_are_pinned() -> None:
    found, queue = set(), [(canonicalize_name(need.name), frozenset(need.extras)) for need in declared()]
    while queue:
        name, extras = queue.pop()
        if (name, extras) in found:
            continue
        found.add((name, extras))
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:  # such as the OpenCV build that is not installed here
            continue
        for need in map(Requirement, lines):
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                queue.append((canonicalize_name(need.name), frozenset(need.extras)))
    assert {name for name, _ in found} - set(pins()) == set()


def test_python_range_is_what_setup_asks_for() -> None:
    assert SpecifierSet(PROJECT["requires-python"]) == SpecifierSet(">=3.11")
    assert "sys.version_info < (3, 11)" in SETUP


def test_pyproject_and_setup_name_one_detectron2() -> None:
    archive = re.search(r'^ARCHIVE="(.+)"$', SETUP, re.MULTILINE)
    assert archive is not None
    assert archive[1] in (ROOT / "pyproject.toml").read_text("utf-8")
    assert re.search(r'^REPACKAGING_SHA256="[0-9a-f]{64}"$', SETUP, re.MULTILINE)


def test_setup_says_what_python_lacks(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "setup.sh").write_text(SETUP, "utf-8")
    for name in ("tools/constraints.txt", "pyproject.toml"):
        (tmp_path / name).write_text("", "utf-8")
    environment = {**os.environ, "PYTHON": str(tmp_path / "no-python")}
    command = ["bash", str(tools / "setup.sh")]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", check=False)
    assert run.returncode == 1
    assert "no-python: not found" in run.stderr
    assert "python3-venv" in run.stderr


def test_license_is_apache_2() -> None:
    text = " ".join((ROOT / "LICENSE").read_text("utf-8").split())
    assert text.startswith("Apache License Version 2.0, January 2004")
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["license"] == "Apache-2.0"


@pytest.mark.parametrize("code", NEEDS_DETECTRON2)
def test_without_detectron2_the_error_says_how_to_install_it(code: str) -> None:
    room = re.search(r"import (data|engine);", code)
    if room and not (ROOT / "lung_d2" / room[1] / "__init__.py").exists():
        pytest.skip(f"lung_d2/{room[1]} is not there yet")
    run = run_python(f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "detectron2":
            raise ModuleNotFoundError("No module named 'detectron2'", name="detectron2")

sys.meta_path.insert(0, Blocker())
from lung_d2.errors import DependencyError
try:
    {code.replace("; ", chr(10) + "    ")}
except DependencyError as error:
    print("told:", error)
""")
    assert run.stdout.startswith("told: detectron2"), run.stderr
    assert "bash tools/setup.sh" in run.stdout


def test_ct_needs_no_detectron2() -> None:
    run = run_python("import sys; sys.modules['detectron2'] = None; import lung_d2.ct; print('fine')")
    assert run.stdout == "fine\n", run.stderr
