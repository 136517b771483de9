"""Each file is opened once to find the series, once more for its pixels, and little is kept of it in between."""

from __future__ import annotations

import builtins
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ct.dicom_files import PLANTED, expected_hu, make_slice, stored_slices, write, write_series
from lung_d2.ct import find_series, load_series, read_volume
from lung_d2.ct.headers import read_header
from lung_d2.ct.scan import scan_files


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each file is opened."""
    counts: Counter[str] = Counter()
    true_open = builtins.open

    def counting_open(file: Any, *args: Any, **options: Any) -> Any:
        counts[str(file)] += 1
        return true_open(file, *args, **options)

    monkeypatch.setattr(builtins, "open", counting_open)
    return counts


def test_file_is_opened_for_its_header_and_for_its_pixels(tmp_path: Path, opened: Counter[str]) -> None:
    files = [str(path) for path in write_series(tmp_path)]
    opened.clear()
    find_series(tmp_path)
    assert [opened[path] for path in files] == [1, 1, 1, 1]
    opened.clear()
    read_volume(tmp_path)
    assert [opened[path] for path in files] == [2, 2, 2, 2]


def test_little_is_kept_of_a_header_and_no_patient(tmp_path: Path) -> None:
    (series,) = scan_files(write_series(tmp_path, PatientName="PLANTED")).series
    assert all(len(packed) < 2000 for packed in series.packed_headers)
    assert not any(word.encode() in pickle.dumps(series) for word in PLANTED)
    header = read_header(series.files[0])
    assert header is not None
    assert header.patient_key
    unpacked = type(header).unpack(header.pack(), header.path)
    assert (unpacked.path, unpacked.patient_key) == (header.path, "")
    assert unpacked.dataset == header.dataset


def test_series_is_read_in_another_process_or_place(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    (series,) = find_series(tmp_path)
    np.testing.assert_array_equal(load_series(pickle.loads(pickle.dumps(series))).hu, expected_hu(4))


def test_what_is_no_ct_is_listed(tmp_path: Path) -> None:
    write_series(tmp_path / "ct")
    seg = make_slice(stored_slices(1)[0], Modality="seg", SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
    write(seg, tmp_path / "seg")
    (tmp_path / "notes.txt").write_text("text")
    found = scan_files([path for path in sorted(tmp_path.rglob("*")) if path.is_file()])
    (one,) = found.objects
    assert (one.path.name, one.kind, one.modality, one.sop_class_uid) == ("seg", "SEG", "SEG", seg.SOPClassUID)
    assert one.sop_instance_uid == seg.SOPInstanceUID
    assert [path.name for path in found.others] == ["notes.txt"]
    assert found.unreadable == ()


def test_volume_keeps_patient_and_study_for_objects_over_it(tmp_path: Path) -> None:
    write_series(tmp_path, PatientSex="F")
    volume = read_volume(tmp_path)
    assert volume.dicom is not None
    assert volume.dicom.patient.PatientSex == "F"
    assert "PixelData" not in volume.dicom.patient
    assert [plane.path for plane in volume.dicom.planes] == list(volume.source_files)
    assert not any(word in repr(volume) for word in PLANTED)
