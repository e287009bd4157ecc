"""When a run makes which pictures, and of what; they are drawn beside the training, from copies."""

from copy import deepcopy
from functools import partial

import torch
from PIL import Image
from torch import Tensor, nn

from hvc.pretrain.data.batch import Batch
from hvc.pretrain.data.dataset import TrainingData
from hvc.pretrain.data.normalise import Normaliser
from hvc.pretrain.drawing.curves import curves
from hvc.pretrain.drawing.pictures import feature_maps, positive_pairs
from hvc.pretrain.drawing.probe import probe_images
from hvc.pretrain.drawing.violins import weight_violins
from hvc.pretrain.model.trunk import tracking_features
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.tracking.tracker import Tracker


def picture_steps(times: int, total_steps: int) -> set[int]:
    """After which steps pictures are made: `times` of them, spread evenly, and the last one."""
    return {round(total_steps * number / times) for number in range(1, times + 1)} | {total_steps}


class Gallery:
    """Rank 0's pictures of a run: features of fixed images, weights, curves, and views at the start.

    What is drawn in the other thread must not touch PyTorch's global generator, which belongs to the run:
    no network is made there, only copied.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: TrainingData,
        tracker: Tracker,
        total_steps: int,
        untrained: nn.Module,
    ) -> None:
        """`untrained`: the run's own trunk as it began, on the CPU; nobody else uses it."""
        self._config, self._data, self._tracker = config, data, tracker
        self._untrained = untrained.eval()
        self._steps = picture_steps(config.tracking.pictures, total_steps)
        self._images: Tensor | None = None

    def views(self, step: int, batch: Batch) -> None:
        """What the network is shown: a batch's views and their positive pairs."""
        self._tracker.picture("views", step, partial(positive_pairs, batch, self._config))

    def is_due(self, step: int) -> bool:
        """Whether `progress` is wanted after this step."""
        return step in self._steps

    def progress(self, step: int, trunk: dict[str, Tensor]) -> None:
        """Features, weights and curves after a step; the trunk's tensors are copies."""
        for name, render in (
            ("features", partial(self._features, trunk)),
            ("weights", partial(self._weights, trunk)),
            ("curves", lambda: curves(self._tracker.records())),
        ):
            self._tracker.picture(name, step, render)

    def _features(self, trunk: dict[str, Tensor]) -> Image.Image:
        if self._images is None:
            self._images = probe_images(self._data, self._config)
        network = deepcopy(self._untrained)
        network.load_state_dict(trunk)
        return feature_maps(self._images, self._maps(network), self._maps(self._untrained))

    def _weights(self, trunk: dict[str, Tensor]) -> Image.Image:
        return weight_violins(trunk, self._untrained.state_dict())

    @torch.no_grad()
    def _maps(self, network: nn.Module) -> Tensor:
        assert self._images is not None
        normalise = Normaliser("imagenet", torch.device("cpu"))  # as tracking does
        return tracking_features(network, normalise(self._images))
