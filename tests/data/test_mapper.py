from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T
from detectron2.data.detection_utils import annotations_to_instances
from detectron2.structures import BoxMode

from lung_d2.ct import GreyLevels, slice_image
from lung_d2.data import CTDatasetMapper, register_lung_datasets
from lung_d2.data.augment.copy_paste import DonorPool
from lung_d2.data.mapper import _warn_of_dropped_regions
from lung_d2.data.planes import write_plane
from lung_d2.errors import DatasetError, InputError
from lung_d2.masks import encode_mask
from records import draw_chest
from tiny import ring, square, tiny_cases, tiny_config, volume_of, write_tiny_dataset

STILL = ("INPUT.RANDOM_FLIP", "none", "INPUT.CT.HU_JITTER", 0.0)


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("datasets")
    write_tiny_dataset(path, "mapped")
    register_lung_datasets(path)
    return path


@pytest.fixture
def config(root, tmp_path):
    return lambda *opts: tiny_config(root, tmp_path, *opts, name="mapped")


def record(index, split="mapped_val"):
    """Return slice ``index`` of the one val patient; slice 0 has no lesion."""
    return copy.deepcopy(DatasetCatalog.get(split)[index])


def volume_of_val():
    patient = int(record(0)["patient"].removeprefix("patient"))
    return volume_of(np.stack([item.plane for item in tiny_cases()[patient].load()]))


def grey_record(path, plane):
    write_plane(plane, path)
    height, width = plane.shape
    return {"file_name": str(path), "height": height, "width": width, "hu": False, "annotations": []}


def test_training_gives_image_and_instances(config):
    mapped = CTDatasetMapper(config(), is_train=True)(record(1))
    assert (mapped["image"].shape, mapped["image"].dtype) == ((3, 64, 64), torch.uint8)
    assert "annotations" not in mapped
    assert mapped["instances"].gt_classes.tolist() == [0, 1]


def test_unmoved_masks_are_those_of_the_source_with_their_holes(config):
    mapped = CTDatasetMapper(config(*STILL), is_train=True)(record(2))
    patient = int(mapped["patient"].removeprefix("patient"))
    source = list(tiny_cases()[patient].load())[2]
    for got, (_, mask) in zip(mapped["instances"].gt_masks.tensor.numpy(), source.instances, strict=True):
        assert np.array_equal(got, mask)
    assert mapped["instances"].gt_masks.tensor.sum(dim=(1, 2)).tolist() == [256, 132]


def test_resized_masks_may_be_written_to_as_torch_asks(config, monkeypatch):
    seen = []

    def spy(annotations, *words, **options):
        seen.extend(one["segmentation"].flags.writeable for one in annotations)
        return annotations_to_instances(annotations, *words, **options)

    monkeypatch.setattr("detectron2.data.detection_utils.annotations_to_instances", spy)
    CTDatasetMapper(config("INPUT.MIN_SIZE_TRAIN", (101,), "INPUT.MAX_SIZE_TRAIN", 101), is_train=True)(record(1))
    assert seen == [True, True]


@pytest.mark.parametrize("opts", [(), ("INPUT.MIN_SIZE_TRAIN", (101,), "INPUT.MAX_SIZE_TRAIN", 101)])
def test_boxes_are_tight_around_their_masks(config, opts):
    np.random.seed(3)
    mapper = CTDatasetMapper(config(*opts), is_train=True)
    for index in (1, 2, 3):
        instances = mapper(record(index))["instances"]
        assert len(instances) == 2
        for box, mask in zip(instances.gt_boxes.tensor, instances.gt_masks.tensor, strict=True):
            rows, columns = torch.where(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_slice_without_a_lesion_has_no_instances(config):
    instances = CTDatasetMapper(config(), is_train=True)(record(0))["instances"]
    assert len(instances) == 0
    assert instances.gt_boxes.tensor.shape == (0, 4)


def undecided(mask, category):
    """Return a dataset annotation that leaves a mask undecided for a category."""
    box = mask_box(mask)
    rle = encode_mask(mask)
    mode = BoxMode.XYXY_ABS
    return {"category_id": category, "segmentation": rle, "bbox": box, "bbox_mode": mode, "iscrowd": 1}


def mask_box(mask):
    rows, columns = np.nonzero(mask)
    return [float(side) for side in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


def pieces():
    """Return a frame around most of the slice and a square inside of it: two pieces, a hole and a gap."""
    return ring(64, 2, 2, 60, wall=12) | square(64, 28, 28, 8)


def undecided_record(index):
    """Return a slice with a region in pieces that is undecided for both categories."""
    given = record(index)
    given["annotations"] += [undecided(pieces(), category) for category in (0, 1)]
    return given


def test_undecided_regions_are_marked_among_the_instances(config):
    instances = CTDatasetMapper(config(*STILL), is_train=True)(undecided_record(1))["instances"]
    assert instances.gt_classes.tolist() == [0, 1, 0, 1]
    assert instances.gt_crowd.tolist() == [False, False, True, True]
    assert [np.array_equal(mask, pieces()) for mask in instances.gt_masks.tensor[2:].numpy()] == [True, True]
    assert instances.gt_boxes.tensor[2:].tolist() == [[2, 2, 62, 62]] * 2


def test_slice_may_have_undecided_regions_alone(config):
    instances = CTDatasetMapper(config(*STILL), is_train=True)(undecided_record(0))["instances"]
    assert instances.gt_crowd.tolist() == [True, True]


def test_slices_without_undecided_regions_are_as_detectron2_makes_them(config):
    mapper = CTDatasetMapper(config(*STILL), is_train=True)
    assert list(mapper(record(1))["instances"].get_fields()) == ["gt_boxes", "gt_classes", "gt_masks"]
    assert list(mapper(record(0))["instances"].get_fields()) == ["gt_boxes", "gt_classes"]


@pytest.mark.parametrize(
    ("augmentation", "expected"),
    [
        (T.RandomFlip(1.0), lambda mask: mask[:, ::-1]),
        (T.RandomFlip(1.0, horizontal=False, vertical=True), lambda mask: mask[::-1]),
        (T.Resize((128, 192)), lambda mask: mask.repeat(2, axis=0).repeat(3, axis=1)),
        (T.CropTransform(10, 20, 30, 40), lambda mask: mask[20:60, 10:40]),
    ],
    ids=["flip", "vertical flip", "resize", "crop"],
)
def test_undecided_regions_move_with_the_image(augmentation, expected):
    mask = square(64, 12, 3, 20) | square(64, 40, 30, 9)
    given = record(0) | {"annotations": [undecided(mask, 0)]}
    mapper = CTDatasetMapper(True, augmentations=[augmentation], grey=GreyLevels(), keep_undecided=True)
    mapped = mapper(given)
    found = mapped["instances"].gt_masks.tensor[0].numpy()
    assert mapped["image"].shape[1:] == found.shape
    assert np.array_equal(found, expected(mask))
    assert mapped["instances"].gt_boxes.tensor[0].tolist() == mask_box(expected(mask))


def test_undecided_region_that_is_cropped_away_leaves_no_mark():
    given = record(0) | {"annotations": [undecided(square(64, 40, 40, 9), 0), undecided(square(64, 0, 50, 9), 1)]}
    crop = T.CropTransform(0, 0, 32, 32)
    instances = CTDatasetMapper(True, augmentations=[crop], grey=GreyLevels(), keep_undecided=True)(given)["instances"]
    assert len(instances) == 0
    assert not instances.has("gt_crowd")


@pytest.mark.parametrize(
    "opts",
    [
        ("MODEL.PROPOSAL_GENERATOR.NAME", "RPN"),  # what the dumped configs of older runs say
        ("MODEL.ROI_HEADS.NAME", "StandardROIHeads"),
        ("MODEL.META_ARCHITECTURE", "RetinaNet"),
    ],
)
def test_model_that_would_take_undecided_regions_for_lesions_is_not_shown_them(config, caplog, opts):
    _warn_of_dropped_regions.cache_clear()
    mapper = CTDatasetMapper(config(*opts, *STILL), is_train=True)
    for _ in range(2):
        instances = mapper(undecided_record(1))["instances"]
        assert instances.gt_classes.tolist() == [0, 1]
        assert not instances.has("gt_crowd")
    assert [message.count("LungRPN") for message in caplog.messages if "iscrowd" in message] == [1]


def test_evaluation_attaches_no_truth(config):
    mapped = CTDatasetMapper(config(), is_train=False)(record(1))
    assert not {"instances", "annotations"} & set(mapped)
    assert mapped["image_id"] == record(1)["image_id"]


@pytest.mark.parametrize("channels", ["single", "neighbours"])
@pytest.mark.parametrize("grey", ["window", "minmax_clahe"])
@pytest.mark.parametrize("index", [0, 2, 3])
def test_evaluation_image_is_that_of_the_volume_bit_for_bit(config, channels, grey, index):
    opts = ("INPUT.CT.CHANNELS", channels, "INPUT.CT.GREY", grey, "INPUT.MIN_SIZE_TEST", 100)
    cfg = config(*opts, "INPUT.MAX_SIZE_TEST", 100)
    image = slice_image(volume_of_val(), index, grey=GreyLevels(grey), channels=channels)
    resized = T.ResizeShortestEdge([100, 100], 100).get_transform(image).apply_image(image)
    mapped = CTDatasetMapper(cfg, is_train=False)(record(index))
    assert np.array_equal(mapped["image"].numpy(), resized.transpose(2, 0, 1))


def test_window_of_the_config_is_used(config):
    wide = CTDatasetMapper(config("INPUT.CT.WINDOW_CENTER", 40.0, "INPUT.CT.WINDOW_WIDTH", 400.0), is_train=False)
    image = slice_image(volume_of_val(), 1, grey=GreyLevels(window_center=40, window_width=400))
    assert np.array_equal(wide(record(1))["image"].numpy(), image.transpose(2, 0, 1))


def test_crop_is_a_part_of_the_training_image_alone(config):
    cropped = config("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "relative", "INPUT.CROP.SIZE", [0.5, 0.5])
    slice_1 = record(1)
    mapped = CTDatasetMapper(cropped, is_train=True)(slice_1)
    whole = CTDatasetMapper(config(), is_train=True)(slice_1)
    assert mapped["image"].shape == whole["image"].shape  # resized to the same size
    assert not torch.equal(mapped["image"], whole["image"])
    assert all(mask.any() for mask in getattr(mapped["instances"], "gt_masks", []))
    assert CTDatasetMapper(cropped, is_train=False)(slice_1)["image"].shape == whole["image"].shape


AROUND = ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "relative", "INPUT.CT.AUGMENT.LESION_CROP", 1.0)


@pytest.mark.parametrize(
    "moves", [("ROTATION", 180.0), ("TRANSLATION", 0.2), ("ELASTIC", 0.05)], ids=lambda one: one[0]
)
def test_lesion_crop_holds_the_lesion_where_it_was_moved_before(config, moves):
    key, value = moves
    opts = (*STILL, "INPUT.MIN_SIZE_TRAIN", (64,), f"INPUT.CT.AUGMENT.{key}", value)
    given = record(1) | {"annotations": record(1)["annotations"][1:]}  # the smaller of two
    small = CTDatasetMapper(config(*opts, *AROUND, "INPUT.CROP.SIZE", [0.5, 0.5]), is_train=True)
    whole = CTDatasetMapper(config(*opts), is_train=True)
    for seed in range(20):
        np.random.seed(seed)
        # The crop is resized to the size of the slice: twice as long, four times the area.
        cropped = small(given)["instances"].gt_masks.tensor.sum() / 4
        np.random.seed(seed)
        assert cropped.item() == pytest.approx(whole(given)["instances"].gt_masks.tensor.sum().item(), rel=0.1)


def test_lesion_crop_is_not_laid_around_an_undecided_region(config):
    lesion = record(1)["annotations"][1]
    given = record(1) | {"annotations": [lesion, undecided(square(64, 0, 0, 4), 0)]}
    mapper = CTDatasetMapper(config(*AROUND, "INPUT.CROP.SIZE", [0.5, 0.5], *STILL), is_train=True)
    np.random.seed(0)
    found = [mapper(given)["instances"] for _ in range(20)]
    assert all(lesion["category_id"] in one.gt_classes.tolist() for one in found)


def test_given_dict_is_not_changed(config):
    given, before = record(1), record(1)
    CTDatasetMapper(config(), is_train=True)(given)
    assert given == before


def test_jitter_is_one_shift_of_the_whole_training_image(config):
    cfg = config("INPUT.RANDOM_FLIP", "none", "INPUT.CT.HU_JITTER", 80.0)
    np.random.seed(0)
    shift = np.random.normal(0.0, 80.0)
    np.random.seed(0)
    mapped = CTDatasetMapper(cfg, is_train=True)(record(1))
    moved = GreyLevels(window_center=-600 - shift).apply(volume_of_val().hu[1])
    assert abs(shift) > 20
    assert np.array_equal(mapped["image"][0].numpy(), moved)


def test_jitter_leaves_evaluation_alone(config):
    jittered = CTDatasetMapper(config("INPUT.CT.HU_JITTER", 500.0), is_train=False)(record(1))
    assert np.array_equal(jittered["image"][0].numpy(), GreyLevels().apply(volume_of_val().hu[1]))


def test_jitter_leaves_grey_sources_alone(config, tmp_path):
    plane = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64).astype(np.uint8)
    opts = ("INPUT.RANDOM_FLIP", "none", "INPUT.CT.HU_JITTER", 500.0, "INPUT.CT.GREY", "minmax_clahe")
    mapped = CTDatasetMapper(config(*opts), is_train=True)(grey_record(tmp_path / "grey.png", plane))
    assert np.array_equal(mapped["image"][0].numpy(), plane)


AUGMENT = "INPUT.CT.AUGMENT."


def mapped_twice(cfg, given, seed, donors=None):
    """Map a record twice with one seed, and return the first result."""
    results = []
    for _ in range(2):
        np.random.seed(seed)
        results.append(CTDatasetMapper(cfg, is_train=True, donors=donors)(copy.deepcopy(given)))
    assert torch.equal(results[0]["image"], results[1]["image"])
    assert torch.equal(results[0]["instances"].gt_boxes.tensor, results[1]["instances"].gt_boxes.tensor)
    return results[0]


def test_what_is_off_draws_nothing_and_changes_nothing(config):
    np.random.seed(1)
    donors = DonorPool([record(index) for index in range(4)])
    mapped = CTDatasetMapper(config(*STILL), is_train=True, donors=donors)(record(1))
    drawn = np.random.random()
    np.random.seed(1)
    np.random.normal()  # the jitter of 0 HU
    np.random.choice((64,))  # the size
    assert np.random.random() == drawn
    assert np.array_equal(mapped["image"][0].numpy(), GreyLevels().apply(volume_of_val().hu[1]))


def test_geometry_moves_image_masks_and_boxes_together(config):
    cfg = config(*STILL, f"{AUGMENT}ROTATION", 15.0, f"{AUGMENT}SCALE", 0.1, f"{AUGMENT}ELASTIC", 0.04)
    still = CTDatasetMapper(config(*STILL), is_train=True)(record(1))["instances"]
    for seed in range(5):
        mapped = mapped_twice(cfg, record(1), seed)
        instances = mapped["instances"]
        hazy = instances.gt_masks.tensor[0].numpy()
        assert not np.array_equal(hazy, still.gt_masks.tensor[0].numpy())
        assert np.median(mapped["image"][0].numpy()[hazy]) > 120  # -450 HU among -850
        assert instances.gt_boxes.tensor.tolist() == [mask_box(mask) for mask in instances.gt_masks.tensor.numpy()]


def test_lesion_that_leaves_the_picture_leaves_no_empty_mask(config):
    cfg = config(*STILL, f"{AUGMENT}TRANSLATION", 0.9)
    counts = set()
    for seed in range(20):
        instances = mapped_twice(cfg, record(1), seed)["instances"]
        counts.add(len(instances))
        assert not len(instances) or instances.gt_masks.tensor.any(dim=2).any(dim=1).all()
    assert counts > {0}


def test_noise_in_hu_is_seen_through_the_window(config):
    still = CTDatasetMapper(config(*STILL), is_train=True)(record(0))["image"]
    noisy = mapped_twice(config(*STILL, f"{AUGMENT}HU_NOISE", 60.0), record(0), 0)["image"]
    np.random.seed(0)
    np.random.normal()  # the jitter of 0 HU
    std = np.random.uniform(0.0, 60.0)
    change = noisy[0].numpy().astype(float) - still[0].numpy()
    assert std > 20
    assert change.std() == pytest.approx(std * 255 / 1500, rel=0.05)  # grey levels a HU


def test_grey_sources_have_their_own_contrast(config, tmp_path):
    given = grey_record(tmp_path / "grey.png", np.full((64, 64), 100, np.uint8))
    cfg = config(*STILL, "INPUT.CT.GREY", "minmax_clahe", f"{AUGMENT}GREY_BRIGHTNESS", 30.0, f"{AUGMENT}HU_NOISE", 90.0)
    image = mapped_twice(cfg, given, 2)["image"]
    assert len(image.unique()) == 1
    assert 5 < abs(int(image[0, 0, 0]) - 100) <= 30


def chest_record(path, lesion=None):
    """Write a chest with a lesion of -300 HU, if any, and return its dataset dict."""
    plane, _ = draw_chest()
    annotations = []
    if lesion is not None:
        plane[lesion] = -300
        annotations = [undecided(lesion, 0) | {"iscrowd": 0}]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_plane(plane, path)
    return {"file_name": str(path), "height": 128, "width": 128, "hu": True, "annotations": annotations}


def test_lesion_of_another_slice_becomes_an_instance(config, tmp_path):
    empty = chest_record(tmp_path / "images" / "a" / "0.png")
    full = chest_record(tmp_path / "images" / "b" / "0.png", square(128, 60, 34, 9))
    size = ("INPUT.MIN_SIZE_TRAIN", (128,), "INPUT.MAX_SIZE_TRAIN", 128)
    size += ("INPUT.MIN_SIZE_TEST", 128, "INPUT.MAX_SIZE_TEST", 128)
    cfg = config(*STILL, *size, f"{AUGMENT}COPY_PASTE.PROBABILITY", 1.0)
    mapped = mapped_twice(cfg, empty, 3, DonorPool([empty, full]))
    (mask,) = mapped["instances"].gt_masks.tensor.numpy()
    plain = CTDatasetMapper(cfg, is_train=True)(empty)
    assert mapped["instances"].gt_boxes.tensor.tolist() == [mask_box(mask)]
    assert mapped["image"][0].numpy()[mask].mean() > plain["image"][0].numpy()[mask].mean() + 60
    assert len(plain["instances"]) == 0  # without donors
    assert torch.equal(CTDatasetMapper(cfg, is_train=False, donors=DonorPool([full]))(empty)["image"], plain["image"])


def test_window_of_a_grey_source_is_refused(config, tmp_path):
    source = grey_record(tmp_path / "grey.png", np.zeros((64, 64), np.uint8))
    with pytest.raises(InputError, match=r"\.png: no Hounsfield units"):
        CTDatasetMapper(config(), is_train=True)(source)


def test_slice_of_another_size_is_refused(config):
    wrong = record(1) | {"height": 32}
    with pytest.raises(DatasetError, match=r"0001\.png: 64 x 64 pixels; expected 32 x 64"):
        CTDatasetMapper(config(), is_train=False)(wrong)


def test_missing_slice_is_named(config):
    with pytest.raises(DatasetError, match=r"none\.png: no such file"):
        CTDatasetMapper(config(), is_train=False)(record(1) | {"file_name": "none.png"})


def test_neighbours_of_a_source_without_them_are_refused(config):
    alone = record(1)
    del alone["neighbours"]
    with pytest.raises(DatasetError, match=r"no neighbouring slices.*CHANNELS single"):
        CTDatasetMapper(config("INPUT.CT.CHANNELS", "neighbours"), is_train=False)(alone)
