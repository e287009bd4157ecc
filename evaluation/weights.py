"""The whole trunk, all layers, behind anything that can be evaluated."""

from torch import Tensor

from hvc.evaluation.features import untrained_trunk
from hvc.evaluation.resolve import resolve
from hvc.evaluation.tracked import tracking_uri
from hvc.pretrain.encoder_file import EncoderMetadata, metadata_of, read_encoder


def weights_of(
    reference: str, uri: str | None = None, seed: int = 42
) -> tuple[dict[str, Tensor], EncoderMetadata]:
    """State dict and metadata of a checkpoint reference, `baseline:untrained` included.

    Args:
        reference: as `hvc evaluate` takes it.
        uri: MLflow's address, where it is not the usual one.
        seed: weights of `baseline:untrained`.

    Raises HvcError when there is no such checkpoint, or it is damaged.
    """
    trunk = resolve(reference, tracking_uri(uri, reference))
    if trunk.encoder is None:
        return untrained_trunk(seed).state_dict(), metadata_of("resnet18", 0)
    return read_encoder(trunk.encoder)
