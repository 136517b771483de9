from __future__ import annotations

import csv
import logging
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from lung_d2.data.quality.fingerprint import FINGERPRINT_BITS, slice_fingerprint
from lung_d2.data.quality.leaks import MAX_DISTANCE, Leak, Slice, check_leaks, find_leaks
from lung_d2.errors import DatasetError
from lung_d2.phantom import build_patient, preset_by_name

BITS = np.random.default_rng(20_260).integers(0, 2, FINGERPRINT_BITS).astype(bool)


def code(flipped=0, bits=BITS):
    """A fingerprint that differs from the one of all tests in so many bits, none of them in the first words."""
    changed = bits.copy()
    changed[FINGERPRINT_BITS - flipped :] ^= True
    return np.packbits(changed).tobytes().hex()


def unlike(seed):
    return code(bits=np.random.default_rng(seed).integers(0, 2, FINGERPRINT_BITS).astype(bool))


def cohort(patients, slices=4):
    """Slices of different patients, alternately of train and val, that are all unlike."""
    return [
        Slice(("train", "val")[patient % 2], f"p{patient}", f"p{patient}/{index}", unlike([patient, index]))
        for patient in range(patients)
        for index in range(slices)
    ]


def test_clean_splits_have_no_leak():
    assert find_leaks(cohort(20)) == []
    assert check_leaks(iter(cohort(4))) == []
    assert find_leaks([]) == []


def test_patient_in_two_splits_is_found():
    slices = [*cohort(6), Slice("val", "p0", "p0 again/0", unlike(99))]
    assert find_leaks(slices) == [Leak("p0/0", "p0 again/0", 0, "patient", ("train", "val"))]


def test_patient_without_a_fingerprint_is_found_too():
    slices = [Slice("train", "p", "a", ""), Slice("test", "p", "b", "")]
    assert find_leaks(slices) == [Leak("b", "a", 0, "patient", ("test", "train"))]


def test_patient_in_two_splits_is_not_listed_slice_by_slice():
    slices = [Slice(split, "p", f"{split}/{index}", unlike(index)) for split in ("train", "val") for index in range(9)]
    assert [leak.kind for leak in find_leaks(slices)] == ["patient"]


def test_slice_copied_under_another_name_is_found():
    slices = [*cohort(6), Slice("train", "a", "a/7", code()), Slice("val", "b", "b/3", code())]
    assert find_leaks(slices) == [Leak("a/7", "b/3", 0, "copy", ("train", "val"))]


@pytest.mark.parametrize(("distance", "found"), [(1, True), (MAX_DISTANCE, True), (MAX_DISTANCE + 1, False)])
def test_near_slices_are_found_up_to_the_threshold(distance, found):
    leaks = find_leaks([Slice("train", "a", "a/0", code()), Slice("val", "b", "b/0", code(distance))])
    assert [leak.distance for leak in leaks] == [distance] * found


def test_copies_within_a_split_are_no_leak():
    assert find_leaks([Slice("train", "a", "a/0", code()), Slice("train", "b", "b/0", code())]) == []


def test_slices_without_a_fingerprint_are_no_copies():
    assert find_leaks([Slice("train", "a", "a/0", ""), Slice("val", "b", "b/0", "")]) == []


def test_every_pair_of_three_splits_is_compared():
    slices = [Slice(split, split, f"{split}/0", code()) for split in ("train", "val", "test")]
    assert {leak.splits for leak in find_leaks(slices)} == {("test", "train"), ("test", "val"), ("train", "val")}


def test_each_slice_is_named_with_its_nearest_copy():
    slices = [Slice("train", "a", "a/0", code()), Slice("train", "b", "b/0", code(40))]
    slices += [
        Slice("val", "c", "c/0", code(10)),
        Slice("val", "d", "d/0", code(35)),
        Slice("val", "e", "e/0", code(90)),
    ]
    found = {(leak.first, leak.second): leak.distance for leak in find_leaks(slices)}
    assert found == {("a/0", "c/0"): 10, ("b/0", "d/0"): 5, ("b/0", "e/0"): 50}


def test_leaks_are_sorted_patients_first_and_nearest_next():
    slices = [Slice("train", "a", "a/0", code(20)), Slice("val", "b", "b/0", code())]
    slices += [Slice("train", "c", "c/0", unlike(1)), Slice("val", "d", "d/0", unlike(1))]
    slices += [Slice("train", "e", "e/0", ""), Slice("val", "e", "e/1", "")]
    assert [(leak.kind, leak.distance) for leak in find_leaks(slices)] == [("patient", 0), ("copy", 0), ("copy", 20)]


def test_blocks_join_without_a_gap():
    """More slices than a block holds in both splits, with copies in the last place of each."""
    random = np.random.default_rng(5)
    slices = [Slice("train", "a", f"a/{index}", random.bytes(288).hex()) for index in range(130)]
    slices += [Slice("val", "b", f"b/{index}", random.bytes(288).hex()) for index in range(4200)]
    slices += [Slice("train", "c", "c/0", slices[-1].fingerprint), Slice("val", "d", "d/0", slices[64].fingerprint)]
    assert {(leak.first, leak.second) for leak in find_leaks(slices)} == {("c/0", "b/4199"), ("a/64", "d/0")}


def test_many_equal_slices_are_compared_once():
    slices = [
        Slice(*pair, f"{pair[1]}/{index}", code()) for pair in (("train", "a"), ("val", "b")) for index in range(20_000)
    ]
    started = time.perf_counter()
    assert len(find_leaks(slices)) == 1
    assert time.perf_counter() - started < 5  # 400 million pairs would take minutes


def test_check_names_both_slices_and_the_way_out():
    slices = [Slice("train", "Miller", "aa/0007.png", code()), Slice("val", "Smith", "bb/0003.png", code(12))]
    with pytest.raises(DatasetError) as caught:
        check_leaks(slices)
    message = str(caught.value)
    assert message.startswith("aa/0007.png (train): a copy of bb/0003.png (val)")
    assert "(val), which differs in 12 of 2304 bits" in message
    assert message.endswith("or give --allow-duplicates")
    assert "Miller" not in message
    assert "Smith" not in message


def test_check_counts_what_it_does_not_name():
    slices = [Slice(split, "p", split, "") for split in ("train", "val", "test")]
    with pytest.raises(DatasetError, match=r"test \(test\): of the same patient as train \(train\), and 1 more"):
        check_leaks(slices)


def test_leaks_that_are_allowed_are_returned_and_logged(caplog):
    slices = [Slice("train", "a", "a/0", code()), Slice("val", "b", "b/0", code())]
    with caplog.at_level(logging.WARNING):
        assert check_leaks(slices, allow=True) == find_leaks(slices)
    assert "a/0 (train): a copy of b/0 (val)" in caplog.text


def test_broken_fingerprint_is_refused_by_the_slice_s_name():
    with pytest.raises(DatasetError, match=r"^a/0: 4 characters; expected 576 hexadecimal digits"):
        find_leaks([Slice("train", "a", "a/0", "00ff")])


def test_patients_of_a_phantom_cohort_are_no_copies_and_a_mirrored_one_is():
    spec = replace(preset_by_name("mini"), matrix=(128, 128), slice_count=1)
    planes = [build_patient(spec, number).volume.hu[0] for number in range(4)]
    slices = [
        Slice(("train", "val")[number % 2], f"p{number}", f"p{number}/0", slice_fingerprint(plane))
        for number, plane in enumerate(planes)
    ]
    assert find_leaks(slices) == []
    planted = Slice("val", "another", "planted", slice_fingerprint(planes[0][:, ::-1]))
    assert [(leak.first, leak.second, leak.kind) for leak in find_leaks([*slices, planted])] == [
        ("p0/0", "planted", "mirrored copy")
    ]
    assert find_leaks([*slices, planted], mirrored=False) == []


@pytest.fixture(scope="module")
def covid_slices(data_root):
    """The real 8-bit slices, each under its volume; every third, for time."""
    folder = data_root / "covid_slices"
    with (folder / "split.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))[::3]
    planes = {row["file"]: cv2.imread(str(folder / "ct" / row["file"]), cv2.IMREAD_UNCHANGED) for row in rows}
    return planes, [
        Slice(row["split"], row["volume"], row["file"], slice_fingerprint(planes[row["file"]])) for row in rows
    ]


def test_real_slices_are_no_copies_across_their_split(covid_slices):
    _, slices = covid_slices
    assert all(one.fingerprint for one in slices)
    assert find_leaks(slices) == []


def test_two_reconstructions_of_one_real_scan_are_found(covid_slices):
    """Two of the set's volumes, both in train, show the same patient in the same breath."""
    _, slices = covid_slices
    by_volume = [Slice(one.patient, one.patient, one.name, one.fingerprint) for one in slices]
    assert {leak.splits for leak in find_leaks(by_volume)} == {("run10", "run11")}


def test_copy_of_a_real_slice_is_found(covid_slices):
    planes, slices = covid_slices
    name = slices[50].name
    small = cv2.resize(planes[name], (200, 200), interpolation=cv2.INTER_AREA)
    copied = cv2.imdecode(cv2.imencode(".jpg", small)[1], cv2.IMREAD_UNCHANGED)
    leaks = find_leaks([*slices, Slice("val", "other", "copied.jpg", slice_fingerprint(copied))])
    assert (leaks[0].first, leaks[0].second) == (name, "copied.jpg")
