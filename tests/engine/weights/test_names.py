"""Names of weights: looked up in two folders and nowhere else, and held to their SHA-256."""

from __future__ import annotations

import hashlib
import os
import subprocess

import pytest

from lung_d2.engine.weights import names as weights_names
from lung_d2.engine.weights.names import (
    address_of,
    check_digest,
    find_weights,
    list_weights,
    require_weights,
    user_folder,
)
from lung_d2.errors import CheckpointError

DIGEST = hashlib.sha256(b"weights").hexdigest()


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Give a folder of the package and one of the user, in place of the real ones."""
    shipped, own = tmp_path / "shipped", tmp_path / "own"
    shipped.mkdir()
    own.mkdir()
    monkeypatch.setattr(weights_names, "SHIPPED_FOLDER", shipped)
    monkeypatch.setenv("LUNG_D2_WEIGHTS", str(own))
    return shipped, own


def put(folder, name, content=b"weights"):
    (folder / f"{name}.safetensors").write_bytes(content)
    return folder / f"{name}.safetensors"


def test_name_is_found_in_the_package_first(folders):
    shipped, own = folders
    first, other = put(shipped, "both"), put(own, "mine")
    put(own, "both")
    assert list_weights() == {"both": first, "mine": other}
    assert find_weights("both") == first
    assert find_weights("lung_d2://mine") == other


def test_user_folder_follows_the_xdg_convention(monkeypatch, tmp_path):
    monkeypatch.delenv("LUNG_D2_WEIGHTS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert user_folder() == tmp_path / "lung_d2" / "weights"


def test_path_is_itself(tmp_path):
    assert find_weights("some/where.safetensors").as_posix() == "some/where.safetensors"
    assert find_weights(tmp_path / "x.safetensors") == tmp_path / "x.safetensors"


@pytest.mark.parametrize("given", ["", "model.pth", "detectron2://a/R-50.pkl", "https://a.b/c.safetensors", "unknown"])
def test_other_weights_are_left_to_detectron2(given):
    assert find_weights(given) is None


def test_file_goes_before_a_name(folders, tmp_path, monkeypatch):
    put(folders[1], "model")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").write_bytes(b"a checkpoint without an ending")
    assert find_weights("model") is None


@pytest.mark.parametrize(
    "name", ["../secret", "..", "a/../../secret", "sub/inner", "/etc/passwd", "%2e%2e/secret", "*"]
)
def test_name_leads_nowhere_else(folders, name):
    put(folders[1].parent, "secret")
    (folders[1] / "sub").mkdir()
    put(folders[1] / "sub", "inner")
    put(folders[1], "fine")
    with pytest.raises(CheckpointError, match=r"no weights of this name.*one of the names: fine"):
        require_weights(name)
    with pytest.raises(CheckpointError, match="no weights of this name"):
        find_weights(f"lung_d2://{name}")


def test_unknown_name_tells_that_there_are_none_and_where_they_go(folders):
    with pytest.raises(CheckpointError, match=f"one of the names: none yet; put the file into {folders[1]}"):
        require_weights("unknown")


def test_address_is_right_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert address_of("x.safetensors") == f"lung_d2://{os.getcwd()}/x.safetensors"
    assert address_of("lung_d2://name") == address_of("name") == "lung_d2://name"


def test_digest_is_compared_with_the_one_beside(folders):
    path = put(folders[1], "mine")
    assert check_digest(path) == DIGEST
    sums = path.with_name("mine.safetensors.sha256")
    sums.write_text(f"{DIGEST}  mine.safetensors\n")
    assert check_digest(path) == DIGEST
    path.write_bytes(b"weight5")
    os.utime(path, ns=(1, 1))
    with pytest.raises(CheckpointError, match=r"mine\.safetensors: SHA-256 .* as mine\.safetensors\.sha256 says"):
        check_digest(path)


def test_renamed_pair_is_told_from_a_changed_file(folders):
    path = put(folders[1], "new name")
    sums = path.with_name("new name.safetensors.sha256")
    sums.write_text(f"{DIGEST}  old.safetensors\n")
    with pytest.raises(
        CheckpointError, match=r"not named in new name\.safetensors\.sha256: was the file renamed"
    ) as told:
        check_digest(path)
    assert DIGEST in str(told.value)
    command = str(told.value).split("in its folder: ")[1]
    subprocess.run(command, shell=True, cwd=folders[1], check=True)
    assert check_digest(path) == DIGEST


def test_shipped_file_has_to_be_pinned(folders):
    path = put(folders[0], "ours")
    with pytest.raises(CheckpointError, match="SHA256SUMS"):
        check_digest(path)
    sums = folders[0] / "SHA256SUMS"
    sums.write_text("no line of sha256sum\n")
    with pytest.raises(CheckpointError, match=r"expected a line for it in .*SHA256SUMS"):
        check_digest(path)
    sums.write_text(f"{'0' * 64}  ours.safetensors\n")
    with pytest.raises(CheckpointError, match="expected 0000000000000000"):
        check_digest(path)
    sums.write_text(f"{'0' * 64}  other.safetensors\n{DIGEST} *ours.safetensors\n")
    assert check_digest(path) == DIGEST


def test_real_folder_is_pinned_whole(monkeypatch):
    monkeypatch.undo()
    for path in weights_names.SHIPPED_FOLDER.glob("*.safetensors"):
        check_digest(path)
    assert (weights_names.SHIPPED_FOLDER / "SHA256SUMS").is_file()
