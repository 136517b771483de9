"""Who finds the lungs: by name, from a label volume, or from another package."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lung_d2.ct.nifti import write_nifti
from lung_d2.errors import ConfigError, DependencyError, GeometryError, InputError
from lung_d2.lungs import LungField, choose_finder, find_lungs
from lung_d2.lungs import field as finders
from lung_d2.lungs.field import LabelFileFinder, finder_names, parse_finder
from tiny import volume_of

LABELS = np.zeros((3, 8, 9), np.uint8)
LABELS[1, 2:6, 1:4], LABELS[1, 2:6, 5:8] = 1, 2


@pytest.fixture
def volume():
    return volume_of(np.full(LABELS.shape, 40, np.int16))


class Lungmask(ModuleType):
    """The package without its network: ``labels`` are what it finds, or its error; ``image`` is what it got
    and ``loaded`` how often its network was loaded."""

    labels: Any = None
    image: Any = None
    loaded = 0


@pytest.fixture
def lungmask(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lungmask]:
    module = Lungmask("lungmask")

    class LMInferer:
        def __init__(self, modelname: str, tqdm_disable: bool) -> None:
            assert modelname == "R231"
            module.loaded += 1
            if isinstance(module.labels, Exception):
                raise module.labels

        def apply(self, image: Any) -> Any:
            module.image = image
            return module.labels

    module.LMInferer = LMInferer
    monkeypatch.setitem(sys.modules, "lungmask", module)
    finders._load_lungmask.cache_clear()
    yield module
    finders._load_lungmask.cache_clear()


def test_names_and_paths_are_told_apart(tmp_path):
    assert parse_finder("builtin") == "builtin"
    assert choose_finder("builtin") is find_lungs
    path = parse_finder(str(tmp_path / "lungs.nii.gz"))
    assert choose_finder(path) == LabelFileFinder(tmp_path / "lungs.nii.gz")
    with pytest.raises(ConfigError, match="lungs other: no such finder; expected builtin, lungmask, or a label volume"):
        choose_finder("other")


def test_unknown_name_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(
        ConfigError, match="lungs lungmsk: no such finder; expected builtin, lungmask, or a label volume"
    ):
        parse_finder("lungmsk")
    (tmp_path / "labels").mkdir()
    assert parse_finder(str(tmp_path / "labels")) == tmp_path / "labels"


def test_lungmask_that_is_not_installed_is_refused_when_it_is_chosen(monkeypatch):
    monkeypatch.setitem(sys.modules, "lungmask", None)
    with pytest.raises(DependencyError, match="lungmask: not installed"):
        parse_finder("lungmask")


@pytest.mark.parametrize("choice", ["builtin", "lungmask"])
def test_finder_goes_to_another_process(choice):
    assert pickle.loads(pickle.dumps(choose_finder(choice))) is choose_finder(choice)


def find_nothing(volume):
    return LungField(np.zeros(volume.hu.shape, np.uint8), volume.spacing_mm)


def test_another_package_adds_a_finder(monkeypatch, volume):
    own = EntryPoint("nothing", f"{__name__}:find_nothing", finders.ENTRY_POINTS)
    monkeypatch.setattr(EntryPoint, "load", lambda self: find_nothing)
    monkeypatch.setattr(finders, "entry_points", lambda group, **name: [own] if group == own.group else [])
    assert finder_names() == ["builtin", "lungmask", "nothing"]
    assert parse_finder("nothing") == "nothing"
    assert not choose_finder("nothing")(volume).labels.any()


def test_label_volume_gives_right_and_left(volume, tmp_path):
    write_nifti(LABELS, volume.affine_lps, tmp_path / "lungs.nii.gz")
    assert np.array_equal(choose_finder(tmp_path / "lungs.nii.gz")(volume).labels, LABELS)


@pytest.mark.parametrize(
    ("labels", "error"),
    [(LABELS * 3, "labels up to 6; expected 1 right lung, 2 left lung"), (LABELS[1:], "")],
)
def test_unfit_label_volume_is_refused_by_name(volume, tmp_path, labels, error):
    write_nifti(labels, volume.affine_lps, tmp_path / "lungs.nii.gz")
    with pytest.raises(InputError, match=rf"lungs\.nii\.gz: {error}"):
        choose_finder(tmp_path / "lungs.nii.gz")(volume)


def test_lungmask_gets_the_volume_with_its_geometry(volume, lungmask):
    lungmask.labels = LABELS
    field = choose_finder("lungmask")(volume)
    assert np.array_equal(field.labels, LABELS)
    assert lungmask.image.GetSize() == volume.hu.shape[::-1]
    assert lungmask.image.GetSpacing() == pytest.approx(volume.spacing_mm[::-1])
    assert lungmask.image.GetOrigin() == pytest.approx(volume.affine_lps[:3, 3])
    assert np.linalg.det(np.reshape(lungmask.image.GetDirection(), (3, 3))) == pytest.approx(1)


def test_network_of_lungmask_is_loaded_once_in_a_process(volume, lungmask):
    lungmask.labels = LABELS
    for _ in range(3):
        choose_finder("lungmask")(volume)
    assert lungmask.loaded == 1


def test_lungmask_without_weights_says_what_to_do(volume, lungmask):
    lungmask.labels = OSError("no network")
    with pytest.raises(DependencyError, match=r"lungmask: its weights cannot be loaded \(OSError\)"):
        choose_finder("lungmask")(volume)


def test_missing_lungmask_says_how_to_install_it(volume, lungmask, monkeypatch):
    monkeypatch.setitem(sys.modules, "lungmask", None)
    with pytest.raises(DependencyError, match=r'lungmask: not installed; .* run "pip install lungmask"'):
        choose_finder("lungmask")(volume)


def test_labels_of_other_kinds_are_no_field():
    with pytest.raises(GeometryError, match="expected uint8 of three, from 0 to 2"):
        LungField(LABELS * 3, (1.0, 1.0, 1.0))
