from __future__ import annotations

import numpy as np
from detectron2.data import DatasetFromList

from lung_d2.data.augment.donors import DonorPool


def record(name, *, crowds=(0,), data_set="a", hu=True, size=64, neighbours=False):
    """Return a dataset dict; ``crowds`` says of each annotation whether it is undecided."""
    annotations = [{"iscrowd": crowd} for crowd in crowds]
    given = {"file_name": f"/root/{data_set}/images/s/{name}.png", "hu": hu, "height": size, "width": size}
    return given | {"annotations": annotations} | ({"neighbours": []} if neighbours else {})


def drawn_names(records, asking, count=40):
    pool = DonorPool(records)
    np.random.seed(0)
    drawn = [pool.draw(asking) for _ in range(count)]
    return {None if one is None else one["file_name"].rsplit("/", 1)[1].removesuffix(".png") for one in drawn}


def test_donors_have_lesions_that_are_decided():
    records = [record("empty", crowds=()), record("crowd", crowds=(1,)), record("both", crowds=(1, 0)), record("x")]
    assert drawn_names(records, record("asking")) == {"both", "x"}


def test_donors_are_of_the_same_data_set_size_and_values():
    others = [record("a", data_set="b"), record("b", hu=False), record("c", size=32), record("d", neighbours=True)]
    assert drawn_names([*others, record("like")], record("asking")) == {"like"}
    assert drawn_names(others, record("asking")) == {None}


def test_slice_is_not_its_own_donor():
    assert drawn_names([record("only")], record("only")) == {None}


def test_slice_without_lesions_finds_donors():
    assert drawn_names([record("full")], record("empty", crowds=())) == {"full"}


def test_seed_decides_who_is_drawn():
    pool = DonorPool(DatasetFromList([record(str(number)) for number in range(20)]))
    drawn = []
    for seed in (3, 3, 4):
        np.random.seed(seed)
        drawn.append([pool.draw(record("asking"))["file_name"] for _ in range(5)])
    assert drawn[0] == drawn[1] != drawn[2]
