"""The training stage: train -> train_step -> forward_backward, resumable at every checkpoint."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from hvc.base.addresses import public
from hvc.base.errors import HvcError
from hvc.base.files import read_json, write_atomic
from hvc.base.stage import Outcome, Provenance, Result, Stop
from hvc.pretrain import checkpoint as checkpoints
from hvc.pretrain.bad_samples import BadSamples, allowed
from hvc.pretrain.batch import Batch
from hvc.pretrain.checkpoint import CheckpointWriter
from hvc.pretrain.dataset import TrainingData, load_data, plan_run
from hvc.pretrain.ema import EmaTarget
from hvc.pretrain.encoder_file import EncoderMetadata, write_encoder
from hvc.pretrain.engine import Engine, choose_device
from hvc.pretrain.loaders import start_server
from hvc.pretrain.meter import Meter, ProgressLine
from hvc.pretrain.network import OnlineNetwork, StepLoss, TargetNetwork
from hvc.pretrain.normalise import Normaliser
from hvc.pretrain.order import RunOrder
from hvc.pretrain.output import hold_folder, planned_steps, refuse_other_recipe
from hvc.pretrain.pairs import Pairs, find_pairs
from hvc.pretrain.pictures import curves, feature_maps, positive_pairs
from hvc.pretrain.processes import own_place
from hvc.pretrain.ranks import Ranks
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.stream import stream
from hvc.pretrain.tracking import Tracker, settle
from hvc.pretrain.views import STATISTICS

_DIVERGED = (
    "the last checkpoint is untouched. Go on from it with engine.precision=fp32 if that was bf16, or start "
    "anew with a lower learning_rate and another output="
)
_log = logging.getLogger(__name__)


def run(config: TrainConfig, stop: Stop, provenance: Provenance) -> Result:
    """Train, or go on from the newest complete checkpoint in the output folder."""
    place = own_place()
    data = load_data(config)
    if config.workers:
        start_server()  # imports while this process does
    device = choose_device(config.engine.device, place)
    ranks = Ranks(place, device)
    tracker: Tracker | None = None
    with ranks.together(), ExitStack() as held:

        def begin() -> int:
            nonlocal tracker
            held.enter_context(hold_folder(config))
            start, tracker = _begin(config, data, provenance)
            return start

        start = ranks.first_decides(begin)
        if start == planned_steps(config, data):
            return Result(Outcome.DONE, _finished_report(config, start))
        outcome: Outcome | None = None
        try:
            trainer = Trainer(config, data, ranks, device, tracker, provenance)
            if start:
                trainer.restore(start)
            outcome = trainer.train(stop)
        finally:
            if tracker:
                tracker.finish(outcome)
        return Result(outcome, _report(config, trainer, tracker))


def _begin(config: TrainConfig, data: TrainingData, provenance: Provenance) -> tuple[int, Tracker | None]:
    """Rank 0, holding the folder: the step to start from, and the run to track into.

    Nothing of a finished run changes, except what a kill or a dead server kept from MLflow.
    """
    root = config.folder / "checkpoints"
    found = checkpoints.newest(root)
    if found:
        refuse_other_recipe(config, data, found)
        if found.step == planned_steps(config, data):
            settle(config, data, provenance, found)
            return found.step, None
    tracker = Tracker(config, data, provenance)
    tracker.repair(root)
    write_atomic(config.folder / "recipe.yaml", config.to_yaml())
    return (found.step if found else 0), tracker


class Trainer:
    """One rank's training: the networks, the engine, and the step they stand at."""

    def __init__(
        self,
        config: TrainConfig,
        data: TrainingData,
        ranks: Ranks,
        device: torch.device,
        tracker: Tracker | None,
        provenance: Provenance,
    ) -> None:
        self.config, self.data, self.ranks, self.tracker = config, data, ranks, tracker
        self.place, self.device = ranks.place, device
        self._attempt = provenance.attempt
        self._root = config.folder / "checkpoints"
        self.total_steps = planned_steps(config, data)
        self.step = 0
        self._order = RunOrder(plan_run(config, data))
        limit = allowed(config.stream.max_bad, self._order.samples)
        self._bad = BadSamples(limit, self.place.rank)
        torch.manual_seed(config.seed)
        online = OnlineNetwork(
            config.architecture,
            config.loss.static_weight,
            config.loss.dynamic_weight,
        )
        target = TargetNetwork(online).to(self.device)
        self.online = online.to(self.device).train()
        self.engine = Engine(self.online, config, self.device)
        self.ema = EmaTarget(target, self.total_steps, config.ema_momentum)
        self._normalise = Normaliser(config.views.statistics, self.device)
        self.last_metrics: dict[str, float] = {}

    def train(self, stop: Stop) -> Outcome:
        """Step until the end or until a rank is asked to stop."""
        if self.tracker:
            self.tracker.journal.rewind(self.step)
        checkpoint_every = self.config.checkpoint.every
        with ProgressLine(self.total_steps, self.step, visible=self.place.first) as line:
            meter = Meter()
            for batch in self._batches():
                if self.step == 0 and self.tracker:
                    self.tracker.picture("views", positive_pairs(batch, self.config))
                self._bad.add(batch)
                meter.add(batch, self.train_step(batch))
                self.step += 1
                finished = self.step == self.total_steps
                stopping = self.ranks.any_rank(stop()) and not finished
                if self.step % self.config.log_every == 0 or finished or stopping:
                    self._record(meter, line)
                    meter = Meter()
                if self.step % checkpoint_every == 0 or finished or stopping:
                    with meter.pause():
                        self.save()
                if stopping:
                    return Outcome.STOPPED
                if finished:
                    self._farewell(batch)
        return Outcome.DONE

    def train_step(self, batch: Batch) -> StepLoss:
        """EMA, target passes, online passes, loss, gradients, optimiser: one step (paper's order)."""
        views = self._views(batch)
        height = width = self.config.views.size // 8
        pairs = find_pairs(batch.boxes, height, width, self.config.loss.radius).to(self.device)
        self.ema.update(self.online.ema_source())
        return self._forward_backward(views, pairs, batch.plan.weight)

    def _forward_backward(self, views: list[Tensor], pairs: Pairs, weight: float) -> StepLoss:
        bf16 = self.config.engine.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            keys = [self.ema.network(view) for view in views]
        loss: StepLoss = self.engine.forward(views, pairs, keys)
        self.engine.backward_and_step(loss.total * weight)
        return loss

    def _views(self, batch: Batch) -> list[Tensor]:
        """The two views as the network takes them, float [B, 3, S, S] on the device."""
        colours = batch.colours or (None, None)
        pixels = batch.views_on(self.device)
        return [self._normalise(view, colour) for view, colour in zip(pixels, colours, strict=True)]

    def _batches(self) -> Iterator[Batch]:
        return stream(
            self.config,
            self.data,
            rank=self.place.rank,
            world_size=self.place.world_size,
            first_step=self.step,
            last_step=self.total_steps,
            cut_later=cut_later(self.config, self.device),
        )

    def _record(self, meter: Meter, line: ProgressLine) -> None:
        values = meter.result(self.ranks.sum_over_ranks)
        if not all(value == value and abs(value) != float("inf") for value in values.values()):
            raise HvcError(f"the loss is not finite at step {self.step}; {_DIVERGED}")
        bad = self._bad.check((self.step - 1) // self._order.steps, self.ranks.sum_over_ranks)
        values |= {"train/epoch": self.step / self._order.steps, "train/ema_steps": float(self.ema.step)}
        values["data/bad_samples"] = float(bad)
        self.last_metrics = values
        line.update(self.step, values)
        if self.tracker:
            self.tracker.metrics(self.step, values)

    def save(self) -> None:
        """Write a checkpoint: every rank its buffers, rank 0 the rest; then it counts."""
        self._refuse_diverged()
        writer = CheckpointWriter(self._root, self.step, self._attempt)
        tensors = self.online.state_dict() | self.ema.network.state_dict()
        buffer_names = {name for name, _ in self.online.named_buffers()}
        buffer_names |= {name for name, _ in self.ema.network.named_buffers()}
        buffers = {name: tensors[name] for name in buffer_names}
        rng = {"rng/torch": torch.get_rng_state()}
        writer.write_tensors(f"buffers-{self.place.rank:05d}", buffers | rng)
        optimiser = self.engine.optimiser_state()
        self.ranks.barrier()
        if self.place.first:
            parameters = {name: value for name, value in tensors.items() if name not in buffers}
            writer.write_tensors("model", parameters)
            writer.write_tensors("optimizer", optimiser)
            self._write_encoder(writer, parameters)
            done = writer.commit(self._state())
            checkpoints.prune(self._root, self.config.checkpoint.keep)
            _log.info("checkpoint %s", done.folder)
            if self.tracker:
                self.tracker.checkpoint(done)
        self.ranks.barrier()

    def _refuse_diverged(self) -> None:
        values = [*self.online.parameters(), *self.ema.network.parameters()]
        finite = all(bool(torch.isfinite(value).all()) for value in values)
        if not finite:
            _log.warning("rank %d: weights are not finite at step %d", self.place.rank, self.step)
        if self.ranks.any_rank(not finite):
            raise HvcError(f"the weights are not finite at step {self.step}; {_DIVERGED}")

    def restore(self, step: int) -> None:
        """Take everything back from a step's checkpoint, at this number of ranks."""
        found = checkpoints.verified(self._root, step)  # rank 0 has checked its hashes
        state = found.state
        tensors = found.tensors("model")
        tensors |= found.buffers(self.place.rank, self.place.world_size)
        for network in (self.online, self.ema.network):
            own = network.state_dict()
            with torch.no_grad():
                for name, value in own.items():
                    value.copy_(tensors[name])
        self.engine.adopt_parameters()
        self.engine.load_optimiser_state(found.tensors("optimizer"))
        if "rng/torch" in tensors:
            torch.set_rng_state(tensors["rng/torch"])
        self.ema.load_state(state["ema"])
        self.step = int(state["step"])
        if self.place.first:
            _log.info("resuming at step %d of %d from %s", self.step, self.total_steps, found.folder)

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "total_steps": self.total_steps,
            "ema": self.ema.state(),
            "world_size": self.place.world_size,
            "attempt": self._attempt,
            "recipe": self.config.resolved(),
            "method": self.config.method_digest(),
            "dataset": self.data.digest,
            "run_id": self.tracker.run_id if self.tracker else None,
        }

    def _write_encoder(self, writer: CheckpointWriter, parameters: dict[str, Tensor]) -> None:
        # The other ranks' buffers lie in the same folder by now; merging needs no collective.
        files = writer.rank_files(self.place.world_size)
        merged = checkpoints.merge_buffers([load_file(path) for path in files])
        prefix = "online_encoder."
        trunk = {
            name.removeprefix(prefix): value
            for name, value in (parameters | merged).items()
            if name.startswith(prefix)
        }
        # Official practice: whatever training normalised with, tracking uses ImageNet's statistics.
        mean, std = STATISTICS["imagenet"]
        metadata = EncoderMetadata(
            architecture=self.config.architecture,
            stride_1_layers=self.online.online_encoder.stride_1_layers,
            mean=mean,
            std=std,
            step=self.step,
            recipe_digest=self.config.method_digest(),
        )
        path = writer.folder / checkpoints.ENCODER
        write_encoder(path, trunk, metadata)
        checkpoints.sync(path)

    @torch.no_grad()
    def _farewell(self, last: Batch) -> None:
        # After the last save: what happens to BatchNorm's mode here cannot reach a checkpoint.
        if not self.tracker:
            return
        shown = last.views[0][:6]
        trunk = self.online.online_encoder.eval()
        features = trunk(self._normalise(shown)).cpu()
        self.tracker.picture("features", feature_maps(shown, features))
        self.tracker.picture("curves", curves(self.tracker.journal.records()))
        if self.config.tracking.upload_encoder != "none":
            done = self._root / checkpoints.step_name(self.step)
            self.tracker.encoder(done / checkpoints.ENCODER)


def cut_later(config: TrainConfig, device: torch.device) -> bool:
    """Whether views are cut on the training device, and not by the loader processes."""
    return config.views.cut == "device" or (config.views.cut == "auto" and device.type != "cpu")


def _report(config: TrainConfig, trainer: Trainer, tracker: Tracker | None) -> dict[str, Any]:
    report: dict[str, Any] = {
        "step": trainer.step,
        "steps": trainer.total_steps,
        "checkpoint": str(config.folder / "checkpoints" / checkpoints.step_name(trainer.step)),
        "metrics": trainer.last_metrics,
    }
    if tracker:
        report |= {"run_id": tracker.run_id, "tracking_uri": public(tracker.uri)}
    return report


def _finished_report(config: TrainConfig, step: int) -> dict[str, Any]:
    folder = config.folder / "checkpoints" / checkpoints.step_name(step)
    report = {"step": step, "steps": step, "checkpoint": str(folder), "metrics": {}}
    note = read_json(config.folder / "run.json") or {}
    return report | {key: note[key] for key in ("run_id", "tracking_uri") if key in note}
