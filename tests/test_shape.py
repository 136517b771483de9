"""The shape of the package holds: imports, sizes, config keys, public names, documents, top level.

Each check of shape_checks.py runs on this repository, and on a planted tree that breaks it, so that none of them passes
because it looks at nothing.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from shape_checks import (
    TORCH,
    config_keys,
    dead_names_in_documents,
    forbidden_code,
    import_circles,
    long_files,
    long_functions,
    rooms_without_init,
    torch_in_torch_free_rooms,
    uncommented_keys,
    unidiomatic_english,
    unmirrored_tests,
    unread_keys,
    upward_imports,
)

ROOT = Path(__file__).resolve().parents[1]
Check = Callable[[Path], list[str]]

TOP_LEVEL = {
    *("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"),
    *("lung_d2", "configs", "tools", "tests", "datasets"),
}
PUBLIC_FACE = {
    "lung_d2": {"add_lung_config", "load_config", "register_lung_datasets", "recognize"},
    "lung_d2.ct": {"read_volume", "slice_image"},
    "lung_d2.data": {"CTDatasetMapper"},
    "lung_d2.engine": {"LungTrainer", "CTPredictor"},
}
CHECKS: dict[Check, str] = {
    upward_imports: "lung_d2/ct/bad.py:3",
    import_circles: "lung_d2/data/between.py:1",
    torch_in_torch_free_rooms: "lung_d2/ct/bad.py:2",
    long_files: "lung_d2/data/long.py:1",
    long_functions: "lung_d2/data/long.py:1",
    rooms_without_init: "lung_d2/ct:1",
    unidiomatic_english: "lung_d2/data/here.py:4",
    forbidden_code: "lung_d2/ct/utils.py:1",
    uncommented_keys: "lung_d2/config/keys.py:6: INPUT.CT.GREY",
    unread_keys: "lung_d2/config/keys.py:8: nothing reads INPUT.CT.DEAD",
    unmirrored_tests: "tests/ct/test_gone.py:1",
    dead_names_in_documents: "README.md:2: names tools/gone_b.py",
}
PLANTED = {
    "lung_d2/ct/bad.py": """\
        from typing import TYPE_CHECKING
        import torch
        from lung_d2.data import planes
        if TYPE_CHECKING:
            from lung_d2.engine import LungTrainer
        def f(cfg):
            from .. import engine
            from lung_d2 import errors, __version__
            node = cfg.INPUT.CT
            return "lung_d2.data", node.GREY
        """,
    "lung_d2/ct/utils.py": """\
        try:
            print(1)
        except (ValueError, Exception):
            logging.basicConfig()
        """,
    "lung_d2/data/long.py": "def f():\n    import lung_d2.data.here\n" + "    x = 1\n" * 500,
    "lung_d2/data/here.py": """\
        from typing import TYPE_CHECKING
        import lung_d2.data.there
        if TYPE_CHECKING:
            from lung_d2.data import long  # a type is no import; there is no circle, and it is no longer one
        """,
    "lung_d2/data/there.py": "from . import between\nfrom lung_d2.data.long import f\n",
    "lung_d2/data/between.py": "from lung_d2.data.here import x\n",
    "lung_d2/config/keys.py": """\
        def add_lung_config(cfg):
            node = cfg.INPUT.CT = CN()
            # Commented.
            cfg.INPUT.CT.FINE = 1

            node.GREY = 1
            # Commented as well.
            node.DEAD = 1
        """,
    "configs/leaf.yaml": "A: 1\n" * 16,
    "tests/ct/test_gone.py": "",
    "CHANGELOG.md": "| before | now |\n|---|---|\n| `tools/gone.py` | `tools/new.py` |\n\n| `tools/lost.py` |\n",
    "README.md": "`tools/` and [one](configs/leaf.yaml), `configs/*.yaml`, configs/leaf.yaml.\n`tools/gone_{a,b}.py`\n",
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_shape(check: Check) -> None:
    offenders = check(ROOT)
    assert not offenders, "\n" + "\n".join(offenders)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planted")
    for name, text in PLANTED.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(textwrap.dedent(text), "utf-8")
    return root


@pytest.mark.parametrize(("check", "expected"), CHECKS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_check_finds_what_is_planted(check: Check, expected: str, planted: Path) -> None:
    assert any(offender.startswith(expected) for offender in check(planted)), check(planted)


def test_planted_offenders_are_all_there_are(planted: Path) -> None:
    lines = [offender.split(": ")[0] for offender in upward_imports(planted)]
    assert lines == [f"lung_d2/ct/bad.py:{line}" for line in (3, 7, 10)]
    assert [offender.split(":")[1] for offender in forbidden_code(planted)] == ["1", "3", "2", "4"]
    assert len(uncommented_keys(planted)) == 1
    assert [offender.split()[-1] for offender in unread_keys(planted)] == ["INPUT.CT.FINE", "INPUT.CT.DEAD"]
    assert len(dead_names_in_documents(planted)) == 4
    assert len(unidiomatic_english(planted)) == 1
    circle = "lung_d2.data.between, lung_d2.data.here, lung_d2.data.there"
    assert [offender.split(": ")[-1] for offender in import_circles(planted)] == [circle]


def test_config_keys_are_found() -> None:
    assert "INPUT.CT.GREY" in config_keys(ROOT)


def test_top_level_holds_nothing_else() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0 or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: what is committed cannot be told from what lies there")
    names = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def packages() -> list[str]:
    found = (ROOT / "lung_d2").rglob("__init__.py")
    return sorted(".".join(path.parent.relative_to(ROOT).parts) for path in found)


def unresolved(package: str) -> list[str]:
    """Import a package and return those of its public names that lead nowhere."""
    module = importlib.import_module(package)
    found = []
    for name in getattr(module, "__all__", ()):
        try:
            getattr(module, name)
        except (AttributeError, ImportError) as error:
            found.append(f"{package}.{name}: {error}")
    return found


@pytest.mark.parametrize("package", packages())
def test_public_names_resolve(package: str) -> None:
    offenders = unresolved(package)
    assert not offenders, "\n" + "\n".join(offenders)


@pytest.mark.parametrize("package", sorted(set(PUBLIC_FACE) & set(packages())))
def test_public_face_is_exported(package: str) -> None:
    assert PUBLIC_FACE[package] <= set(importlib.import_module(package).__all__)


TORCH_FREE_PACKAGES = [f"lung_d2.{room}" for room in ("ct", "lungs", "drawing", "phantom", "lesions", "findings")]


@pytest.mark.parametrize("package", [name for name in TORCH_FREE_PACKAGES if name in packages()])
def test_package_loads_no_torch(package: str) -> None:
    code = f"""
import importlib, pkgutil, sys
package = importlib.import_module({package!r})
[getattr(package, name) for name in getattr(package, "__all__", ())]
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
print(sorted({TORCH!r} & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr
