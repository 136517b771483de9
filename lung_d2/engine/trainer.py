"""The trainer: Detectron2's, with our loader, evaluation, checkpoints and stop."""

from __future__ import annotations

import logging
import random
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from detectron2.data import MetadataCatalog, build_detection_test_loader
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch.nn.parallel import DistributedDataParallel

from lung_d2.categories import CATEGORIES, Categories
from lung_d2.config.checks import check_config
from lung_d2.config.keys import input_settings, scale_to_batch
from lung_d2.config.loading import choose_loader_workers
from lung_d2.data.loader import TrainLoader, build_train_loader
from lung_d2.data.mapper import CTDatasetMapper
from lung_d2.data.register import check_registered
from lung_d2.engine.checkpoint import LungCheckpointer
from lung_d2.engine.convergence import ConvergenceStop, build_convergence_stop
from lung_d2.engine.hooks import BestCheckpoint, CurvePicture, LastCheckpoint, WeightAverage
from lung_d2.engine.precision import build_step, cpu_has_bfloat16
from lung_d2.engine.predictor import build_tta, without_resize
from lung_d2.errors import CheckpointError, ConfigError, DatasetError, TrainingError
from lung_d2.evaluation.coco import LungCOCOEvaluator
from lung_d2.files import write_text

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

TTA_FOLDER = "inference_TTA"
"""Folder of the results with test-time augmentation, beside ``inference``; Detectron2's name."""
_LOG_PERIOD = 20  # iterations between lines of the log, as in Detectron2
_CONFIG_NAME = "config.yaml"  # what Detectron2's default_setup writes


class LungTrainer(DefaultTrainer):  # type: ignore[misc]
    """Train until the loss has converged or ``SOLVER.MAX_ITER`` is reached.

    A killed run that is resumed repeats what the uninterrupted one would have done; ``SEED`` repeats a run.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """Build model, optimizer, loader and hooks of a config, as Detectron2's trainer does.

        The number of classes is that of the data sets, and rate and schedule are scaled to the batch, however the
        config was made; ``config.yaml`` in the output folder, where there is one, then holds what is used.

        Raises:
            ConfigError: A key cannot be used.
            DatasetError: A data set was not prepared, or the data sets have different categories.
        """
        TrainerBase.__init__(self)
        if not cfg.DATASETS.TRAIN:
            raise ConfigError("DATASETS.TRAIN", found="empty", expected="a data set", remedy="name one")
        cfg, self.categories = adopt_categories(cfg, [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])
        cfg.defrost()
        scale_to_batch(cfg)
        choose_loader_workers(cfg)
        self.cfg = cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        cfg.freeze()
        check_config(cfg)
        _update_dump(cfg)
        self.seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        random.seed(self.seed)
        torch.manual_seed(self.seed)  # the initial weights
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        self.train_loader = self.build_seeded_loader(cfg, self.seed)
        self.average = WeightAverage(model, cfg.SOLVER.EMA.DECAY) if cfg.SOLVER.EMA.ENABLED else None
        self.checkpointer = self._build_checkpointer(model)
        model = _distribute(model)
        self._trainer = build_step(
            model, self.train_loader, optimizer, mixed=cfg.SOLVER.AMP.ENABLED, device=torch.device(cfg.MODEL.DEVICE)
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.register_hooks(self.build_hooks())

    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        """Build the model; channels-last where convolutions in half precision would else reorder their inputs."""
        model: torch.nn.Module = super().build_model(cfg)
        if cfg.MODEL.DEVICE.startswith("cuda") or cpu_has_bfloat16():  # in float32 a CPU is 5 % slower with it
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def _build_checkpointer(self, model: torch.nn.Module) -> LungCheckpointer:
        # What a checkpoint calls "model" is what is evaluated, so that nobody who loads it has to know of an average.
        states: dict[str, Any] = {"trainer": weakref.proxy(self)}
        if self.average is not None:
            model, states["raw_model"] = self.average.averaged, model
        return self._new_checkpointer(model, allow_partial=True, **states)

    def _new_checkpointer(self, model: torch.nn.Module, **rest: Any) -> LungCheckpointer:
        settings, folder = input_settings(self.cfg), self.cfg.OUTPUT_DIR
        return LungCheckpointer(model, folder, settings=settings, categories=self.categories, **rest)

    def build_hooks(self) -> list[HookBase | None]:
        """Return the hooks; those that decide come before those that save, and those that log come last."""
        cfg, period = self.cfg, self.cfg.TEST.EVAL_PERIOD
        built: list[HookBase | None] = [
            hooks.IterationTimer(),
            hooks.LRScheduler(),
            self.average,
            build_convergence_stop(cfg),
            self._build_precise_bn() if cfg.TEST.PRECISE_BN.ENABLED else None,
            hooks.EvalHook(period, lambda: self.evaluate()),
            hooks.EvalHook(0, lambda: self.test_with_tta(cfg, self.evaluated)) if cfg.TEST.AUG.ENABLED else None,
        ]
        if comm.is_main_process():
            best = self._weights_alone(self.checkpointer.model)
            built += [
                BestCheckpoint(period, best, cfg.TEST.BEST_METRIC) if cfg.DATASETS.TEST else None,
                LastCheckpoint(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD, max_to_keep=1),
                hooks.CallbackHook(after_train=lambda _: self._save_raw(self.average)) if self.average else None,
                hooks.PeriodicWriter(self.build_writers(), period=_LOG_PERIOD),
                CurvePicture(cfg.OUTPUT_DIR, period),
            ]
        return built

    def _build_precise_bn(self) -> HookBase:
        # A loader of its own, so that the batches of the training stay the same.
        loader = self.build_seeded_loader(self.cfg, self.seed)
        return hooks.PreciseBN(self.cfg.TEST.EVAL_PERIOD, self.model, loader, self.cfg.TEST.PRECISE_BN.NUM_ITER)

    def _weights_alone(self, model: torch.nn.Module) -> LungCheckpointer:
        alone = self._new_checkpointer(model, tag_last=False)
        alone.notice = self.checkpointer.notice  # which is read later, with the weights
        return alone

    def _save_raw(self, average: WeightAverage) -> None:
        if self.iter >= self.max_iter:  # else the run failed
            self._weights_alone(average.model).save("model_final_raw")

    def evaluate(self) -> Mapping[str, Any]:
        """Evaluate the average of the weights, or the weights, on ``DATASETS.TEST``; keep the results."""
        self._last_eval_results = self.test(self.cfg, self.evaluated)
        return self._last_eval_results

    @property
    def evaluated(self) -> torch.nn.Module:
        """The model that is evaluated."""
        return self.average.averaged if self.average is not None else self.model  # type: ignore[no-any-return]

    @classmethod
    def test_with_tta(cls, cfg: CfgNode, model: torch.nn.Module, folder: str = TTA_FOLDER) -> dict[str, Any]:
        """Evaluate with test-time augmentation, by ``TEST.AUG``.

        Args:
            cfg: The model's.
            model: Detectron2's ``GeneralizedRCNN``.
            folder: Name of the folder of the results, in ``OUTPUT_DIR``.

        Returns:
            What ``test`` returns, each name with ``_TTA`` at its end, as in Detectron2's ``train_net.py``.
        """
        evaluators = [cls.build_evaluator(cfg, name, Path(cfg.OUTPUT_DIR, folder, name)) for name in cfg.DATASETS.TEST]
        results = cls.test(without_resize(cfg), build_tta(cfg, model), evaluators)
        return {f"{name}_TTA": value for name, value in results.items()}

    def resume_or_load(self, resume: bool = True) -> None:
        """Take up the last checkpoint of ``OUTPUT_DIR``, or load ``MODEL.WEIGHTS`` and start at iteration 0.

        Raises:
            CheckpointError: The weights cannot be used, or not every process has the same checkpoint.
        """
        if resume and not self.checkpointer.has_checkpoint():
            logger.info("no checkpoint in %s: training starts at iteration 0", self.cfg.OUTPUT_DIR)
        super().resume_or_load(resume)
        self._check_same_start()
        if self.average is not None and self.start_iter == 0:
            self.average.start_from_average()
        self.train_loader.start_iter = self.start_iter

    def _check_same_start(self) -> None:
        starts = comm.all_gather(self.start_iter)
        if len(set(starts)) > 1:
            raise CheckpointError(
                self.cfg.OUTPUT_DIR,
                found=f"processes that would start at iterations {', '.join(map(str, starts))}",
                expected="the same checkpoint for all of them",
                remedy="share OUTPUT_DIR between the machines, or copy last_checkpoint and its file to each",
            )

    def train(self) -> Mapping[str, Any] | None:
        """Run training, then the last evaluation; return its results.

        A run that ended before, by convergence or at ``MAX_ITER``, is only evaluated.

        Raises:
            TrainingError: The loss became infinite or NaN.
        """
        stop = next((hook for hook in self._hooks if isinstance(hook, ConvergenceStop)), None)
        if stop is not None and stop.converged_at is not None:
            self.max_iter = self.start_iter
        if self.start_iter >= self.max_iter:
            logger.info("training ended before, at iteration %d: only evaluating", self.start_iter)
        # TrainerBase.train loops over a fixed range, so that lowering max_iter would not stop it.
        logger.info("training from iteration %d to at most %d", self.start_iter, self.max_iter)
        self.iter = self.start_iter
        with EventStorage(self.start_iter) as self.storage:
            try:
                self.before_train()
                while self.iter < self.max_iter:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
            except FloatingPointError as error:
                raise TrainingError(
                    f"iteration {self.iter}",
                    found="a loss that is infinite or NaN",
                    remedy="lower SOLVER.BASE_LR, lengthen SOLVER.WARMUP_ITERS, or clip gradients",
                ) from error
            finally:
                self.after_train()
        return getattr(self, "_last_eval_results", None)

    def state_dict(self) -> dict[str, Any]:
        """Return Detectron2's state, the seed of the run, and whether its weights are averaged."""
        return super().state_dict() | {"seed": self.seed, "averaged": self.average is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a checkpoint; the run goes on with the seed it began with.

        Raises:
            CheckpointError: The run averages the weights and the config does not, or the other way round.
        """
        averaged = state.get("averaged", False)
        if averaged != (self.average is not None):
            raise CheckpointError(
                self.cfg.OUTPUT_DIR,
                found=f"a run with SOLVER.EMA.ENABLED {averaged}",
                expected=f"{not averaged}, as the config says",
                remedy="resume it with the config that it began with, or start a new run from its weights",
            )
        super().load_state_dict(state)
        self.seed = self.train_loader.sampler.seed = state.get("seed", self.seed)

    @classmethod
    def build_seeded_loader(cls, cfg: CfgNode, seed: int) -> TrainLoader:
        """Build the training loader, with our mapper."""
        return build_train_loader(cfg, seed)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainLoader:
        """Build the loader for ``SEED``, or seed 0 where the config leaves it open."""
        return cls.build_seeded_loader(cfg, max(cfg.SEED, 0))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Build the test loader, with our mapper."""
        check_registered([dataset_name])
        return build_detection_test_loader(cfg, dataset_name, mapper=CTDatasetMapper(cfg, is_train=False))

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | Path | None = None
    ) -> LungCOCOEvaluator:
        """Build the COCO evaluator of a prepared data set; None: results go to ``OUTPUT_DIR/inference``."""
        folder = output_folder or Path(cfg.OUTPUT_DIR, "inference", dataset_name)
        return LungCOCOEvaluator(dataset_name, output_dir=str(folder))


def adopt_categories(cfg: CfgNode, names: Sequence[str]) -> tuple[CfgNode, Categories]:
    """Take the categories of a run from its data sets.

    Args:
        cfg: The config; not changed.
        names: The data sets that the run trains or evaluates on.

    Returns:
        The config with their number as ``MODEL.ROI_HEADS.NUM_CLASSES``, and the categories.

    Raises:
        DatasetError: A data set was not prepared, or two have different categories.
    """
    check_registered(list(names))
    found = {name: MetadataCatalog.get(name).get("categories", CATEGORIES) for name in names}
    first, categories = next(iter(found.items()), ("", CATEGORIES))
    for name, others in found.items():
        if others.names != categories.names:
            raise DatasetError(
                f"data set {name}",
                found=f"categories {', '.join(others.names)}",
                expected=f"{', '.join(categories.names)}, as {first} has",
                remedy="prepare both with the same categories, or train on one of them",
            )
    logger.info("%d categories, from the data: %s", len(categories), ", ".join(categories.names))
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(categories)
    cfg.freeze()
    return cfg, categories


def _update_dump(cfg: CfgNode) -> None:
    path = Path(cfg.OUTPUT_DIR, _CONFIG_NAME)
    if comm.is_main_process() and path.is_file() and path.read_text("utf-8") != cfg.dump():
        write_text(cfg.dump(), path)


def _distribute(model: torch.nn.Module) -> torch.nn.Module:
    if comm.get_world_size() == 1:
        return model
    # create_ddp_model always passes a device, which DDP refuses on CPU.
    on_gpu = next(model.parameters()).is_cuda
    return DistributedDataParallel(
        model, device_ids=[comm.get_local_rank()] if on_gpu else None, broadcast_buffers=False
    )
