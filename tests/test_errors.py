from __future__ import annotations

import pickle

import pytest

from lung_d2 import errors

ALL_KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


def test_message_holds_place_finding_expectation_and_remedy():
    error = errors.InputError("a.dcm", found="no pixels", expected="a slice", remedy="export it again")
    assert str(error) == "a.dcm: no pixels; expected a slice; export it again"


def test_message_without_expectation():
    assert str(errors.ConfigError("KEY", found="odd", remedy="correct it")) == "KEY: odd; correct it"


def test_message_is_one_line_whatever_went_into_it():
    error = errors.DatasetError("a\nb", found="two\r\n lines", expected="\tone", remedy="fix\nit")
    assert str(error) == "a b: two lines; expected one; fix it"


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_error_survives_the_way_out_of_a_worker_process(kind):
    error = kind("place", found="this", expected="that", remedy="do so")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (str(copy), copy.remedy) == (str(error), "do so")


def test_error_at_another_place_is_the_same_otherwise():
    error = errors.GeometryError("grid", found="a gap", expected="none", remedy="send it again").at("mask.nii")
    assert type(error) is errors.GeometryError
    assert str(error) == "mask.nii: a gap; expected none; send it again"


def test_missing_package_is_an_import_error():
    with pytest.raises(ImportError, match="torch: not installed"):
        raise errors.DependencyError("torch", found="not installed", remedy="install it")


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_docstring_draws_every_error_and_each_is_ours(kind):
    assert issubclass(kind, errors.LungD2Error)
    assert kind.__name__ in errors.__doc__
