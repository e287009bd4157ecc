"""The whole trunk, all layers, behind anything that can be evaluated."""

from torch import Tensor

from hvc.base.errors import UsageError
from hvc.evaluation.propagation.features import untrained_trunk
from hvc.evaluation.trunks.resolve import resolve
from hvc.evaluation.trunks.tracked import tracking_uri
from hvc.pretrain.model.architecture import is_import_path
from hvc.pretrain.weights.encoder_file import EncoderMetadata, metadata_of, read_encoder
from hvc.pretrain.weights.official import complete


def weights_of(
    reference: str, uri: str | None = None, seed: int = 42
) -> tuple[dict[str, Tensor], EncoderMetadata]:
    """State dict and metadata of a checkpoint reference, `baseline:untrained` included.

    Args:
        reference: as `hvc evaluate` takes it.
        uri: MLflow's address, where it is not the usual one.
        seed: weights of `baseline:untrained`.

    Raises HvcError when there is no such checkpoint, or it is damaged or not a whole trunk.
    """
    trunk = resolve(reference, tracking_uri(uri, reference))
    if trunk.kind in ("pixels", "first-mask"):
        raise UsageError(f"{reference} has no weights; baseline:untrained has")
    if trunk.encoder is None:
        return untrained_trunk(seed).state_dict(), metadata_of("resnet18", 0)
    state, metadata = read_encoder(trunk.encoder)
    if not is_import_path(metadata.architecture):
        state, _ = complete(trunk.encoder, state, metadata.architecture)
    return state, metadata
