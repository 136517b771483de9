"""What is stored, under which UIDs, and what is told of the rest."""

from __future__ import annotations

import json
import os
import time

import pydicom
import pytest

from ct.dicom_files import make_slice, stored_slices, write
from lung_d2.client.store import Store, show_uid_text
from lung_d2.errors import InputError
from recognition.chests import write_chest


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_images_are_moved_and_indexed(store, tmp_path):
    paths = write_chest(tmp_path / "chest")
    count = len(paths)
    stored = store.add(paths)
    assert (stored.images, stored.skipped, stored.renamed) == (count, {}, 0)
    assert not any(path.exists() for path in paths)
    files = store.files_of(stored.series[0])
    assert len(files) == count
    positions = [float(pydicom.dcmread(path).ImagePositionPatient[2]) for path in files]
    assert positions == sorted(positions)
    assert all(set(path.stem) <= set("0123456789abcdef") for path in files)


def test_same_image_twice_is_one(store, tmp_path):
    for name in ("a", "b"):
        write(make_slice(stored_slices(1)[0], SOPInstanceUID="1.2.3.4"), tmp_path / name)
    stored = store.add([tmp_path / "a", tmp_path / "b"])
    assert len(store.files_of(stored.series[0])) == 1


def test_other_files_are_counted_and_left_out(store, tmp_path):
    write(make_slice(stored_slices(1)[0]), tmp_path / "ct")
    write(make_slice(stored_slices(1)[0], Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4"), tmp_path / "mr")
    (tmp_path / "text").write_text("hello")
    stored = store.add([tmp_path / name for name in ("ct", "mr", "text")])
    assert stored.images == 1
    assert stored.skipped == {"objects of modality MR": 1, "files that are not DICOM, or damaged": 1}


def test_nothing_but_other_files_is_refused_in_one_line(store, tmp_path):
    (tmp_path / "text").write_text("hello")
    with pytest.raises(InputError, match="1 files that are not DICOM"):
        store.add([tmp_path / "text"])
    assert store.list_series() == []


def test_illegal_uids_are_replaced_by_derived_ones(store, tmp_path):
    illegal = "0d7b6f9e-93c1-4d1e-8d57-0f3a2b1c4d5e"
    for index, stored in enumerate(stored_slices(2)):
        dataset = make_slice(stored, z=float(index), SOPInstanceUID=f"{illegal}-{index}", SeriesInstanceUID=illegal)
        write(dataset, tmp_path / f"{index}")
    result = store.add([tmp_path / "0", tmp_path / "1"])
    assert result.renamed == 2
    assert result.series[0].startswith("2.25.")
    for path in store.files_of(result.series[0]):
        dataset = pydicom.dcmread(path)
        assert dataset.SOPInstanceUID.is_valid
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID


def test_headers_are_kept_as_dicom_json_without_pixels(store, tmp_path):
    write(make_slice(stored_slices(1)[0]), tmp_path / "ct")
    store.add([tmp_path / "ct"])
    header = json.loads(store.find()[0]["header"])
    assert "7FE00010" not in header
    assert show_uid_text(header, "Modality") == "CT"


def test_old_studies_are_known_and_removed_with_their_files(store, tmp_path):
    write(make_slice(stored_slices(1)[0]), tmp_path / "ct")
    stored = store.add([tmp_path / "ct"])
    (path,) = store.files_of(stored.series[0])
    assert store.list_expired(1.0) == []
    with store.connect() as database:
        database.execute("UPDATE instances SET added = ?", (time.time() - 2 * 86400,))
    (old,) = store.list_expired(1.0)
    store.remove(old)
    assert not path.exists()
    assert store.list_series() == []


def test_what_a_killed_process_left_is_removed(tmp_path):
    left = tmp_path / "store" / "incoming" / "x"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"1")
    Store(tmp_path / "store")
    assert os.listdir(tmp_path / "store" / "incoming") == []
