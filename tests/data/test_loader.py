from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from lung_d2.data import build_train_loader
from lung_d2.errors import DatasetError
from tiny import tiny_config, write_tiny_dataset


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("datasets")
    write_tiny_dataset(path, "loaded", size=64)
    return path


@pytest.fixture
def loader(root, tmp_path):
    def build(seed=7, start_iter=0, workers=0, jitter=15.0):
        opts = ("DATALOADER.NUM_WORKERS", workers, "INPUT.CT.HU_JITTER", jitter)
        built = build_train_loader(tiny_config(root, tmp_path, *opts, name="loaded"), seed)
        built.start_iter = start_iter
        return built

    return build


def take(loader, count):
    return list(itertools.islice(loader, count))


def assert_same(batches, others):
    assert len(batches) == len(others)
    for image, other in zip(itertools.chain(*batches), itertools.chain(*others), strict=True):
        assert image["file_name"] == other["file_name"]
        assert torch.equal(image["image"], other["image"])
        assert torch.equal(image["instances"].gt_boxes.tensor, other["instances"].gt_boxes.tensor)


def test_workers_do_not_change_the_stream(loader):
    assert_same(take(loader(workers=0), 7), take(loader(workers=2), 7))


AUGMENTED = (
    *("INPUT.CT.AUGMENT.ROTATION", 10.0, "INPUT.CT.AUGMENT.ELASTIC", 0.04, "INPUT.CT.AUGMENT.HU_NOISE", 30.0),
    *("INPUT.CT.AUGMENT.COPY_PASTE.PROBABILITY", 1.0),
)


def test_augmented_stream_depends_on_seed_and_place_alone(root, tmp_path):
    def build(workers, start_iter=0):
        opts = ("DATALOADER.NUM_WORKERS", workers, *AUGMENTED)
        built = build_train_loader(tiny_config(root, tmp_path, *opts, name="loaded"), 7)
        built.start_iter = start_iter
        return built

    whole = take(build(0), 8)
    assert_same(whole, take(build(2), 8))
    assert_same(whole[5:], take(build(0, start_iter=5), 3))


def test_training_slices_are_given_lesions_of_others(root, tmp_path, monkeypatch):
    """The tiny slices have no lung to be found, so all of each is taken for it."""
    monkeypatch.setattr("lung_d2.data.augment.copy_paste.estimate_lung", lambda plane, lesions: np.ones_like(lesions))
    counts = []
    for opts in ((), AUGMENTED[-2:]):
        batches = take(build_train_loader(tiny_config(root, tmp_path, *opts, name="loaded"), 7), 6)
        counts.append(sum(len(image["instances"]) for batch in batches for image in batch))
    assert counts[0] == 18  # nine slices of two lesions, see below
    assert counts[1] > counts[0]


@pytest.mark.parametrize("start", [3, 8])  # within the first epoch of 6 batches, and after it
def test_stream_is_taken_up_anywhere(loader, start):
    assert_same(take(loader(start_iter=start), 3), take(loader(), start + 3)[start:])


def test_each_epoch_holds_every_image_once_in_another_order(loader):
    names = [image["file_name"] for batch in take(loader(), 12) for image in batch]
    assert len(set(names[:12])) == len(set(names[12:])) == 12
    assert names[:12] != names[12:]


def test_same_image_is_augmented_anew_in_each_epoch(loader):
    images = [image for batch in take(loader(jitter=100.0), 12) for image in batch]
    first, second = [image for image in images if image["file_name"] == images[0]["file_name"]]
    assert not torch.equal(first["image"], second["image"])


def test_other_seed_gives_another_order(loader):
    orders = [[image["file_name"] for batch in take(loader(seed), 6) for image in batch] for seed in (7, 8)]
    assert orders[0] != orders[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_seed_of_the_sampler_is_the_only_one(loader, workers):
    """A resumed run takes up the seed of its checkpoint, not that of the new process."""
    resumed = loader(seed=8, start_iter=2, workers=workers)
    resumed.sampler.seed = 7
    assert_same(take(resumed, 4), take(loader(seed=7, start_iter=2), 4))


def test_numpys_global_generator_stays_as_it_was(loader):
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    take(loader(), 2)
    assert np.random.random() == expected


def test_torchs_generator_belongs_to_the_batch(loader):
    """Anchors and proposals are sampled with it, so a resumed run must draw the same."""

    def draws(start, count):
        torch.manual_seed(start)  # whatever was drawn before
        return [torch.rand(1).item() for _ in itertools.islice(loader(start_iter=start), count)]

    fresh = draws(0, 4)
    assert len(set(fresh)) == 4
    assert draws(2, 2) == fresh[2:]


def test_slices_without_a_lesion_are_trained_on(loader):
    counts = [len(image["instances"]) for batch in take(loader(), 6) for image in batch]
    assert sorted(counts) == [0] * 3 + [2] * 9


def test_data_set_that_was_not_prepared_is_named(root, tmp_path):
    cfg = tiny_config(root, tmp_path, "DATASETS.TRAIN", ("none_train",), name="loaded")
    with pytest.raises(DatasetError, match="data set none_train: not prepared"):
        build_train_loader(cfg, 0)


@pytest.mark.parametrize("wanted", [True, False])
def test_grouping_by_aspect_ratio_is_refused_in_the_log(root, tmp_path, caplog, wanted):
    opts = ("DATALOADER.ASPECT_RATIO_GROUPING", wanted, "DATALOADER.NUM_WORKERS", 0)
    build_train_loader(tiny_config(root, tmp_path, *opts, name="loaded"), 0)
    logged = [record.message for record in caplog.records if record.levelname == "WARNING"]
    expected = "DATALOADER.ASPECT_RATIO_GROUPING is off: a batch would depend on the images before it"
    assert logged == [expected] * wanted
