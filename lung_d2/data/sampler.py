"""Which training image comes at which position of the stream, by Detectron2's own keys.

Detectron2's samplers draw from one generator that lives as long as the run, so that a resumed run cannot continue them;
here every epoch has its own generator, seeded by the run and the epoch.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from detectron2.data import get_detection_dataset_dicts
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.utils import comm
from torch.utils.data import Sampler

from lung_d2.config.checks import WEIGHTED_SAMPLERS
from lung_d2.errors import ConfigError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

Record = dict[str, Any]
Factors = npt.NDArray[np.float64]


class PositionSampler(Sampler[tuple[int, int, int]]):
    """An endless shuffled stream of ``(seed, position, index)``; each epoch is shuffled by its own seed.

    An image of repeat factor 2.3 comes twice in each epoch, and a third time in three of ten: the fraction is rounded
    at random, as in Detectron2's ``RepeatFactorTrainingSampler``, so that epochs may differ in length.

    Attributes:
        seed: Seed of the run. It is kept only here, so that a resumed run changes it by setting it here.
        start: Position at which the next iterator begins.
    """

    def __init__(self, size: int, seed: int, repeat_factors: Factors | None = None) -> None:
        """Set the images and the seed. This process takes every world-size-th position, from its rank on.

        Args:
            size: Number of images.
            seed: Seed of the run.
            repeat_factors: ``(size,)``, 0 or more, not all 0: how often each image comes in an epoch. None: once.
        """
        self.size, self.seed, self.start = size, seed, 0
        # Taken here, in the process that trains: a loader's worker that was spawned knows of no other process.
        self.rank, self.world_size = comm.get_rank(), comm.get_world_size()
        self.repeat_factors = np.ones(size) if repeat_factors is None else repeat_factors

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Yield from ``start`` on, for this process's rank."""
        epoch, first, order = 0, 0, self._order(0)
        for position in itertools.count(self.start + self.rank, self.world_size):
            # The epochs before the start are gone through, since each has its length; that takes milliseconds.
            while position >= first + len(order):
                epoch, first = epoch + 1, first + len(order)
                order = self._order(epoch)
            yield self.seed, position, int(order[position - first])

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        generator = np.random.default_rng([self.seed, epoch])
        times = np.floor(self.repeat_factors)
        fraction = self.repeat_factors - times
        if fraction.any():
            times += generator.random(self.size) < fraction
        indices = np.repeat(np.arange(self.size), times.astype(np.int64))
        return indices[generator.permutation(len(indices))]


def build_sampler(cfg: CfgNode, records: Sequence[Record], seed: int) -> PositionSampler:
    """Build what ``DATALOADER.SAMPLER_TRAIN`` names, with Detectron2's meaning.

    ``TrainingSampler``: each image once an epoch. ``RepeatFactorTrainingSampler``: images of a category that less than
    ``REPEAT_THRESHOLD`` of the images show come more often (Gupta et al., LVIS, CVPR 2019, appendix B.2).
    ``WeightedTrainingSampler``: each data set by its ``DATASETS.TRAIN_REPEAT_FACTOR``.
    ``WeightedCategoryTrainingSampler``: the product of both, the least of which is made 1.

    Args:
        cfg: Reads ``DATALOADER`` and ``DATASETS``.
        records: The images of ``DATASETS.TRAIN``, in its order.
        seed: Seed of the run.

    Raises:
        ConfigError: A factor is not a pair of a name of ``DATASETS.TRAIN`` and a number above 0.
    """
    name = cfg.DATALOADER.SAMPLER_TRAIN
    if name == "TrainingSampler":
        return PositionSampler(len(records), seed)
    if name not in WEIGHTED_SAMPLERS:
        factors = _category_factors(cfg, records)
    else:
        factors = _data_set_factors(cfg)
        if name == "WeightedCategoryTrainingSampler":
            factors *= np.concatenate([_category_factors(cfg, part) for part in _split(cfg)])
            factors /= factors.min()
    logger.info("%s: an epoch has %.0f images, %d of them different", name, factors.sum(), len(records))
    return PositionSampler(len(records), seed, factors)


def _category_factors(cfg: CfgNode, records: Sequence[Record]) -> Factors:
    # Undecided regions (iscrowd) show no category.
    decided = [
        {"annotations": [one for one in _annotations(record) if not one.get("iscrowd", 0)]} for record in records
    ]
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        decided, cfg.DATALOADER.REPEAT_THRESHOLD, sqrt=cfg.DATALOADER.REPEAT_SQRT
    )
    return np.asarray(factors.numpy(), np.float64)


def _annotations(record: Record) -> list[dict[str, Any]]:
    annotations: list[dict[str, Any]] = record.get("annotations", [])
    return annotations


def _data_set_factors(cfg: CfgNode) -> Factors:
    names = cfg.DATASETS.TRAIN
    try:
        factor_of = {str(name): float(factor) for name, factor in cfg.DATASETS.TRAIN_REPEAT_FACTOR}
    except (TypeError, ValueError) as error:
        raise _wrong_factors(cfg) from error
    if not factor_of.keys() <= set(names) or not all(0 < factor < np.inf for factor in factor_of.values()):
        raise _wrong_factors(cfg)
    parts = zip(names, _split(cfg), strict=True)
    return np.concatenate([np.full(len(part), factor_of.get(name, 1.0)) for name, part in parts])


def _wrong_factors(cfg: CfgNode) -> ConfigError:
    return ConfigError(
        "DATASETS.TRAIN_REPEAT_FACTOR",
        found=str(cfg.DATASETS.TRAIN_REPEAT_FACTOR),
        expected=f"pairs of one of {', '.join(cfg.DATASETS.TRAIN)} and a number above 0",
        remedy="correct the key",
    )


def _split(cfg: CfgNode) -> list[list[Record]]:
    keep_all = {"filter_empty": cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS, "check_consistency": False}
    return [get_detection_dataset_dicts([name], **keep_all) for name in cfg.DATASETS.TRAIN]
