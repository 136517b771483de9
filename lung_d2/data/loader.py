"""A training loader that a resumed run continues exactly where it stopped.

Which image comes at which position, and how it is augmented, depends only on the seed and the position in the stream:
neither on the number of workers nor on where the run began.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detectron2.data import DatasetFromList, build_detection_train_loader, get_detection_dataset_dicts
from detectron2.utils import comm
from torch.utils.data import Dataset

from lung_d2.data.augment.copy_paste import DonorPool
from lung_d2.data.mapper import CTDatasetMapper
from lung_d2.data.register import check_registered
from lung_d2.data.sampler import PositionSampler, build_sampler
from lung_d2.errors import DatasetError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

Record = dict[str, Any]


class _SeededDataset(Dataset[Record]):
    """Map records with numpy's global generator, which Detectron2's augmentations use, seeded by seed and position."""

    def __init__(self, records: Sequence[Record], mapper: Callable[[Record], Record]) -> None:
        self.records, self.mapper = records, mapper

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: tuple[int, int, int]) -> Record:
        seed, position, index = key
        with _numpy_seed(seed, position):
            return self.mapper(self.records[index])


@contextmanager
def _numpy_seed(seed: int, position: int) -> Iterator[None]:
    # The legacy generator is the one that Detectron2's augmentations draw from.
    state = np.random.get_state()
    np.random.seed(np.random.SeedSequence([seed, position]).generate_state(4))
    try:
        yield
    finally:
        np.random.set_state(state)


class TrainLoader:
    """Batches for training from any iteration on, with torch's generator seeded for each.

    Detectron2 samples anchors and proposals with torch's global generator, so its state belongs to the batch.
    """

    def __init__(self, batches: torch.utils.data.DataLoader[Any], sampler: PositionSampler, batch_size: int) -> None:
        """Wrap a loader over ``sampler``; ``batch_size`` counts the images of all processes."""
        self.batches, self.sampler, self.batch_size = batches, sampler, batch_size
        self.start_iter = 0

    def __iter__(self) -> Iterator[list[Record]]:
        """Yield the batches of iteration ``start_iter``, and on without end."""
        self.sampler.start = self.start_iter * self.batch_size
        for iteration, batch in enumerate(self.batches, self.start_iter):
            entropy = [self.sampler.seed, iteration, comm.get_rank()]
            torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
            yield batch


def build_train_loader(cfg: CfgNode, seed: int, mapper: Callable[[Record], Record] | None = None) -> TrainLoader:
    """Build the training loader of a config.

    Args:
        cfg: Reads ``DATASETS.TRAIN``, ``DATALOADER``, ``SOLVER.IMS_PER_BATCH`` and ``INPUT``.
        seed: Seed of order, augmentation and sampling.
        mapper: Maps a record; default: ours, as the config says.

    Raises:
        DatasetError: A data set was not prepared or holds no image.
        ConfigError: The factors of the data sets are wrong.
    """
    check_registered(cfg.DATASETS.TRAIN)
    if cfg.DATALOADER.ASPECT_RATIO_GROUPING:
        logger.warning("DATALOADER.ASPECT_RATIO_GROUPING is off: a batch would depend on the images before it")
    records = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
    if not records:
        raise DatasetError(", ".join(cfg.DATASETS.TRAIN), found="no image to train on", remedy="prepare it again")
    sampler = build_sampler(cfg, records, seed)
    stored = DatasetFromList(records)
    if mapper is None:
        donors = DonorPool(stored) if cfg.INPUT.CT.AUGMENT.COPY_PASTE.PROBABILITY else None
        mapper = CTDatasetMapper(cfg, is_train=True, donors=donors)
    batches = build_detection_train_loader(
        _SeededDataset(stored, mapper),
        mapper=None,
        sampler=sampler,
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        aspect_ratio_grouping=False,  # grouping holds images back, so that a resumed run would differ
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
    return TrainLoader(batches, sampler, cfg.SOLVER.IMS_PER_BATCH)
