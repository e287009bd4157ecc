"""One rank's training: train -> train_step -> forward_backward, resumable at every checkpoint."""

import logging
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hvc.base.errors import HvcError
from hvc.base.stage import Outcome, Provenance, Stop
from hvc.pretrain.checkpoints.checkpoint import Checkpoint, merge_buffers, newest
from hvc.pretrain.checkpoints.saver import Saver, Snapshot
from hvc.pretrain.data.bad_samples import BadSamples, allowed
from hvc.pretrain.data.batch import Batch
from hvc.pretrain.data.dataset import TrainingData, plan_run
from hvc.pretrain.data.feed import Feeder, Part
from hvc.pretrain.data.order import RunOrder
from hvc.pretrain.data.stream import stream
from hvc.pretrain.drawing.curves import COLLAPSED
from hvc.pretrain.drawing.show import Gallery
from hvc.pretrain.model.cost import cost_of
from hvc.pretrain.model.ema import EmaTarget
from hvc.pretrain.model.network import OnlineNetwork, StepLoss, TargetNetwork
from hvc.pretrain.model.recompute import recompute_blocks, recompute_cheap
from hvc.pretrain.output import planned_steps
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.tracking.system_figures import system_figures
from hvc.pretrain.tracking.tracker import Tracker
from hvc.pretrain.training.buffers import FlatBuffers
from hvc.pretrain.training.engine import Engine, autocast, channels_last, copy_to_cpu, prepare_device
from hvc.pretrain.training.finite import FiniteGuard
from hvc.pretrain.training.meter import Meter
from hvc.pretrain.training.progress_line import ProgressLine
from hvc.pretrain.training.ranks import Ranks
from hvc.pretrain.training.schedule import learning_rate
from hvc.pretrain.training.snapshot import refuse_diverged, run_state, trunk_metadata, trunk_of
from hvc.pretrain.training.speed import Speed
from hvc.pretrain.training.state import RunState
from hvc.pretrain.training.watchdog import Watchdog

_log = logging.getLogger(__name__)


class Trainer:
    """The networks, the engine, and the step they stand at. All ranks call the same methods."""

    def __init__(
        self,
        config: TrainConfig,
        data: TrainingData,
        ranks: Ranks,
        device: torch.device,
        tracker: Tracker | None,
        provenance: Provenance,
        check_hold: Callable[[], None] = lambda: None,
    ) -> None:
        """`check_hold` raises once checkpoints are no longer this run's to write, see `hold_folder`."""
        self.config, self.data, self.ranks, self.tracker = config, data, ranks, tracker
        self.place, self.device, self._provenance = ranks.place, device, provenance
        self._check_hold = check_hold
        self._dog = Watchdog(config.watchdog_seconds, self.place.rank, config.folder, provenance.on_hang)
        self.total_steps = planned_steps(config, data)
        self.step = 0
        self.left_out = 0
        """Batches of the order that were left out after roll-backs: step s takes batch s + left_out."""
        self._began: int | None = None
        """The step of the checkpoint that this attempt began from."""
        self.last_metrics: dict[str, float] = {}
        self._order = RunOrder(plan_run(config, data))
        self._bad = BadSamples(allowed(config.stream.max_bad, self._order.samples), self.place.rank)
        self._guard = FiniteGuard(config, self.place.rank, device)
        self._rollbacks = 0
        self._warned = False
        self._build()
        side = config.views.size // 8
        self._feeder = Feeder(config, device, (side, side))
        cost = cost_of(config.architecture, config.views.size) if self.place.first else None
        self._speed = Speed(config, device, cost)
        self._saver = self._make_saver() if self.place.first else None
        self._gallery: Gallery | None = None
        if tracker:
            self._gallery = Gallery(config, data, tracker, self.total_steps, self._untrained)

    def _build(self) -> None:
        config, device = self.config, self.device
        prepare_device(config.engine, device)
        torch.manual_seed(config.seed)
        online = OnlineNetwork(
            config.architecture,
            config.loss.static_weight,
            config.loss.dynamic_weight,
            partial(autocast, config.engine, device),
        )
        target = TargetNetwork(online)
        self._untrained = deepcopy(online.online_encoder)
        if config.dummy_forward:
            online.dummy_forward(config.views.size)
        self.online: OnlineNetwork = self._arrange(online).train()
        self.engine = Engine(self.online, config, device)
        target = self._arrange(target)
        if channels_last(config.engine):
            target.to(memory_format=torch.channels_last)
        self.ema = EmaTarget(target, self.total_steps, config.ema_momentum)
        self._buffers = FlatBuffers([self.online, self.ema.network])
        self.state = RunState([self.online, self.ema.network], self.engine, self._buffers, self.ranks)
        if config.engine.recompute:
            recompute_blocks(self.online)
        elif config.engine.compile:  # which plans memory by itself
            for part in (*self.online.children(), *self.ema.network.children()):
                part.compile()
        elif device.type == "cuda":
            recompute_cheap(self.online)

    def _arrange(self, network: Any) -> Any:
        if self.config.engine.sync_batchnorm:
            network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return network.to(self.device)

    def train(self, stop: Stop) -> Outcome:
        """Step until the end or until a rank is asked to stop; what is saved then is safe on disk."""
        if self.step == 0 and self.config.non_finite.policy == "rollback":
            self.save()  # so that there is something to go back to
        with (
            self._saver or nullcontext(),  # whatever happens, what is being written is waited for
            ProgressLine(self.total_steps, self.step, visible=self.place.first) as line,
            self._dog,
        ):
            while not isinstance(outcome := self._steps(stop, line), Outcome):
                self._roll_back(outcome)
            self._with_storage(self._finish_saving)
        return outcome

    def _steps(self, stop: Stop, line: ProgressLine) -> Outcome | int:
        """Until the end or a stop, or to where a step calls for going back: that step."""
        meter = Meter(self.device)
        for batch in self._batches():
            vote = self.ranks.begin_vote(stop())
            if self.step == 0 and self._gallery:
                self._gallery.views(self.step, batch)
            self._bad.add(batch)
            meter.add(batch, *self.train_step(batch))
            self.step += 1
            self._dog.beat(self.step)
            finished = self.step == self.total_steps
            stopping = vote() and not finished
            saving = self.step % self.config.checkpoint.every == 0 or finished or stopping
            bad = self._calls_for_going_back(all_of_them=saving)
            if bad is not None:
                return bad
            if self.step % self.config.log_every == 0 or finished or stopping:
                self._record(meter, line)
                meter = Meter(self.device)
            if self._gallery and self._gallery.is_due(self.step):
                with meter.pause():
                    self._gallery.progress(self.step, self._trunk())
            if saving:
                with meter.pause():
                    self.save()
                self._dog.beat(self.step)
            if stopping:
                return Outcome.STOPPED
        return Outcome.DONE

    def train_step(self, batch: Batch) -> tuple[list[tuple[StepLoss, int]], Tensor, Tensor]:
        """EMA, target passes, online passes, loss, gradients, optimiser: one step (paper's order).

        Returns the loss of each part with its number of images, the gradient's norm, and 1 if the step
        was skipped because that is not finite; on the device.
        """
        parts = self._feeder.parts(batch)
        self.ema.update(self.online.ema_source())
        self._buffers.keep()
        losses = [self._forward_backward(part) for part in parts]
        own = self.engine.step(learning_rate(self.config, self.step, self.total_steps))
        skipped = self.engine.optimiser.found_inf
        self._buffers.undo(skipped)
        total = torch.stack([loss.total.detach() for loss in losses]).sum()
        self._guard.note(self.step, total, own, skipped, self.engine.optimiser.overflow)
        counted = [(loss, part.images) for loss, part in zip(losses, parts, strict=True)]
        return counted, self.engine.optimiser.norm, skipped

    def _forward_backward(self, part: Part) -> StepLoss:
        views = self._feeder.images(part)
        keys = [self.ema.network(view) for view in views]
        loss: StepLoss = self.engine.forward(views, part.pairs, keys)
        self.engine.backward(loss.total * part.weight)
        return loss

    def _batches(self) -> Iterator[Batch]:
        return stream(
            self.config,
            self.data,
            rank=self.place.rank,
            world_size=self.place.world_size,
            first_step=self.step + self.left_out,
            last_step=self.total_steps + self.left_out,
            cut_later=cut_later(self.config, self.device),
        )

    def _calls_for_going_back(self, *, all_of_them: bool) -> int | None:
        """The last bad step known by now; of `all_of_them` before a checkpoint, which must not hold one."""
        bad = [verdict.step for verdict in self._guard.verdicts(all_of_them=all_of_them) if verdict.bad]
        return bad[-1] if bad and self.config.non_finite.policy == "rollback" else None

    def _roll_back(self, bad: int) -> None:
        """To the newest checkpoint, and from there on with the batches after the bad step's.

        A GPU may have taken a further step meanwhile; its batch is not left out.
        """
        self._rollbacks += 1
        self._guard.limit_rollbacks(self._rollbacks)
        behind = bad + 1 + self.left_out
        self._guard.forget()
        found: Checkpoint | None = None

        def find() -> None:
            nonlocal found
            self._finish_saving()
            found = newest(self.config.checkpoints)
            if found is None:
                raise HvcError(
                    f"step {bad} is not finite and cannot be gone back over: {self.config.checkpoints} has "
                    "no checkpoint that can be used any more. Begin anew with another output=, and a lower "
                    "learning_rate or engine.precision=fp32"
                )

        self._with_storage(find)
        self._take_back(found)
        self._begin_ema()
        self.left_out = behind - self.step
        if self.place.first:
            _log.warning(
                "back at step %d; the %d batches up to the bad one are left out", self.step, self.left_out
            )

    def _record(self, meter: Meter, line: ProgressLine) -> None:
        extra = self._extra()
        values = meter.result(self.ranks.gather_objects, extra)
        position = self.step + self.left_out
        bad = self._bad.check((position - 1) // self._order.steps, self.ranks.sum_over_ranks)
        if not self.place.first:
            return
        values |= {
            "train/epoch": position / self._order.steps,
            "train/ema_steps": float(self.ema.step),
            "train/ema_momentum": self.ema.last_momentum,
            "train/learning_rate": learning_rate(self.config, self.step - 1, self.total_steps),
            "train/bad_samples": float(bad),
        }
        values |= self._speed.figures(values["perf/images_per_second"], self.place.world_size)
        self._warn_of_collapse(values)
        self.last_metrics = values
        line.update(self.step, values)
        if self.tracker:
            self.tracker.metrics(self.step, values)

    def _extra(self) -> dict[str, float]:
        values: dict[str, float] = {}
        if self.place.local_rank == 0:
            node = self.place.rank // max(self.place.local_world_size, 1)
            values |= system_figures(node, self.config.folder)
        if self._saver:
            values |= {
                "system/checkpoint/seconds": self._saver.seconds,
                "system/checkpoint/waited": self._saver.waited,
            }
        if self.engine.loss_scale:
            values["train/loss_scale"] = float(self.engine.loss_scale.value)
        return values

    def _warn_of_collapse(self, values: dict[str, float]) -> None:
        spread = values.get("train/feature_spread", 1.0)
        if spread < COLLAPSED and not self._warned:
            self._warned = True
            _log.warning(
                "step %d: the embeddings collapse (train/feature_spread %.4f of 1): every place looks "
                "alike to the network. Lower learning_rate, or look at the views' picture in the run",
                self.step,
                spread,
            )

    def save(self) -> None:
        """Take a snapshot of all ranks; rank 0 writes it in the background, and then it counts."""
        model, optimiser, buffers = self.state.collect()
        self._with_storage(lambda: self._hand_over(model, optimiser, buffers))

    def _with_storage(self, work: Callable[[], object]) -> None:
        """Rank 0 does it, as long as it takes: to wait for storage, whose own time limits end it, is not
        to stand still.
        """
        self.ranks.first_works(work, lambda: self._dog.beat(self.step))

    def _hand_over(
        self, model: dict[str, Tensor], optimiser: dict[str, Tensor], buffers: list[dict[str, Tensor]]
    ) -> None:
        assert self._saver is not None
        refuse_diverged(model, self.step)
        trunk = trunk_of(model | merge_buffers(buffers))
        state = run_state(self.config, self.data, self._provenance, self._progress())
        metadata = trunk_metadata(self.config, self.step)
        self._saver.save(Snapshot(self.step, model, optimiser, buffers, trunk, metadata, state))

    def _progress(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "left_out": self.left_out,
            "total_steps": self.total_steps,
            "world_size": self.place.world_size,
            "ema": self.ema.state(),
            "loss_scale": self.engine.loss_scale.state() if self.engine.loss_scale else None,
            "tracking": self.tracker.state() if self.tracker else {},
        }

    def _trunk(self) -> dict[str, Tensor]:
        """Copies of the trunk's tensors as they are now; this rank's BatchNorm statistics."""
        tensors = self.online.online_encoder.state_dict()
        return {name: copy_to_cpu(value) for name, value in tensors.items()}

    def _make_saver(self) -> Saver:
        tracker, total = self.tracker, self.total_steps
        pinned: Callable[[], set[int] | None] = tracker.pinned_steps if tracker else set

        def committed(checkpoint: Checkpoint) -> None:
            if tracker:
                tracker.checkpoint(checkpoint, last=checkpoint.step == total)

        return Saver(
            self.config.checkpoints,
            self.config.checkpoint,
            pinned=pinned,
            committed=committed,
            check=self._check_hold,
            scratch=self.config.folder,
        )

    def _finish_saving(self) -> None:
        assert self._saver is not None
        self._saver.finish()

    def restore(self, found: Checkpoint | None) -> None:
        """Go on from an earlier attempt's checkpoint, which rank 0 gives, at this number of ranks."""
        self._take_back(found)
        self._began = self.step
        self._begin_ema()
        if self.place.first and found:
            _log.info("resuming at step %d of %d from %s", self.step, self.total_steps, found.address)

    def _begin_ema(self) -> None:
        # Of this attempt's own checkpoints every one is taken back as it is.
        if self.config.ema_restart and self.step == self._began:
            self.ema.restart()

    def _take_back(self, found: Checkpoint | None) -> None:
        state = self.state.restore(found)
        self.ema.load_state(state["ema"])
        if self.engine.loss_scale and state.get("loss_scale"):
            self.engine.loss_scale.load_state(state["loss_scale"])
        self.step, self.left_out = int(state["step"]), int(state.get("left_out", 0))


def cut_later(config: TrainConfig, device: torch.device) -> bool:
    """Whether views are cut on the training device, and not by the loader processes."""
    return config.views.cut == "device" or (config.views.cut == "auto" and device.type != "cpu")
