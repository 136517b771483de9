"""Damaged files: whatever their bytes, a volume comes out or one of our errors, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ct.dicom_files import PLANTED, make_enhanced, make_slice, stored_slices, write
from ct.volume_samples import ITK_SUFFIXES, write_itk
from lung_d2.ct import read_label_volume, read_volume, write_nifti
from lung_d2.errors import InputError

ROUNDS = 250
HEADER_BYTES = 300


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut, overwrite or repeat bytes of a file."""
    kind, at = int(rng.integers(4)), int(rng.integers(len(data)))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[at + int(rng.integers(1, 9)) :]
    if kind == 2:
        return data[:at] + rng.bytes(int(rng.integers(1, 9))) + data[at:]
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        changed[int(rng.integers(len(data)))] = int(rng.integers(256))
    return bytes(changed)


def sample(kind: str, path: Path) -> bytes:
    stored = stored_slices(3)
    if kind == "enhanced":
        write(make_enhanced(stored, [0.0, 2.0, 4.0], [(1.0, -1024.0)] * 3, SOPInstanceUID="1.2.3"), path)
    elif kind == "rle":
        dataset = make_slice(np.arange(256, dtype=np.uint16).reshape(16, 16), SOPInstanceUID="1.2.3")
        dataset.compress("1.2.840.10008.1.2.5")
        write(dataset, path)
    elif kind in ("implicit", "deflated"):
        syntax = "1.2.840.10008.1.2" + (".1.99" if kind == "deflated" else "")
        write(make_slice(stored[0], transfer_syntax=syntax, SOPInstanceUID="1.2.3"), path)
    else:
        write(make_slice(stored[0], SOPInstanceUID="1.2.3"), path)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["classic", "implicit", "deflated", "enhanced", "rle"])
def test_damaged_dicom(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    data, path, rng = sample(kind, tmp_path / "a"), tmp_path / "b.dcm", np.random.default_rng(7)
    for _ in range(ROUNDS):
        path.write_bytes(damage(data, rng))
        try:
            message = ""
            assert read_volume(path).hu.dtype == np.int16
        except InputError as error:
            message = str(error)
        assert not any(word in message for word in PLANTED)
        assert len(message) < 1000
    assert {record.name.split(".")[0] for record in caplog.records} <= {"lung_d2"}
    assert not any(word in caplog.text for word in PLANTED)


@pytest.mark.parametrize("name", ["bad_sequence.dcm", "693_J2KR.dcm"])
def test_damaged_compressed_stream(tmp_path: Path, data_root: Path, name: str) -> None:
    data = (data_root / "odd_files" / "pydicom-data_ct" / name).read_bytes()
    path, rng = tmp_path / "b.dcm", np.random.default_rng(7)
    for _ in range(40):
        path.write_bytes(data[:4000] + damage(data[4000:], rng))
        try:
            assert read_volume(path).hu.dtype == np.int16
        except InputError:
            continue


def test_truncated_compressed_stream_is_never_read(tmp_path: Path, data_root: Path) -> None:
    data = (data_root / "odd_files" / "pydicom-data_ct" / "bad_sequence.dcm").read_bytes()
    for cut in (20, 500, 20000):
        # The delimiters of the fragment sequence stay whole: only the code stream lacks its end.
        (tmp_path / "b.dcm").write_bytes(data[: -8 - cut] + bytes(cut) + data[-8:])
        with pytest.raises(InputError, match="without its end"):
            read_volume(tmp_path / "b.dcm")


def test_damage_that_the_decoder_only_mutters_about(
    tmp_path: Path, data_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = bytearray((data_root / "odd_files" / "pydicom-data_ct" / "bad_sequence.dcm").read_bytes())
    for at in range(-90000, -60000, 3000):
        data[at] ^= 0x3C
    (tmp_path / "b.dcm").write_bytes(data)
    with pytest.raises(InputError, match="cannot be decoded"):
        read_volume(tmp_path / "b.dcm")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_damaged_nifti(tmp_path: Path, suffix: str) -> None:
    array = np.arange(-1000, -760, dtype=np.int16).reshape(6, 8, 5)
    write_nifti(array, np.eye(4), tmp_path / f"a{suffix}")
    data, path, rng = (tmp_path / f"a{suffix}").read_bytes(), tmp_path / f"b{suffix}", np.random.default_rng(7)
    for _ in range(ROUNDS):
        path.write_bytes(damage(data, rng))
        for read in (read_volume, read_label_volume):
            try:
                read(path)
            except InputError:
                continue


@pytest.mark.parametrize("suffix", ITK_SUFFIXES)
@pytest.mark.parametrize("compress", [False, True])
def test_damaged_nrrd_and_metaimage(
    tmp_path: Path, suffix: str, compress: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    array = np.arange(-1000, -760, dtype=np.int16).reshape(6, 8, 5)
    data = write_itk(tmp_path / f"a{suffix}", array, np.eye(4), compress=compress).read_bytes()
    path, rng = tmp_path / f"b{suffix}", np.random.default_rng(7)
    for _ in range(ROUNDS):
        cut = HEADER_BYTES if rng.integers(2) else len(data)  # half of the damage is in the header
        path.write_bytes(damage(data[:cut], rng) + data[cut:])
        for read in (read_volume, read_label_volume):
            try:
                read(path)
            except InputError:
                continue
    assert capfd.readouterr() == ("", "")
