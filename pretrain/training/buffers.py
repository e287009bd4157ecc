"""BatchNorm's statistics of all networks as two flat tensors: kept, taken back and saved at once."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class FlatBuffers:
    """The buffers of some networks, each a view into one flat tensor per dtype (fp32 and int64).

    Make it when nothing moves or replaces buffers any more: from then on modules change them in place.
    """

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        owners = [
            (module, short, f"{name}.{short}" if name else short)
            for network in networks
            for name, module in network.named_modules()
            for short in module._buffers
            if module._buffers[short] is not None
        ]
        self._slices: dict[str, tuple[torch.dtype, int, torch.Size]] = {}
        parts: dict[torch.dtype, list[Tensor]] = {}
        sizes: dict[torch.dtype, int] = {}
        for module, short, name in owners:
            buffer = module.get_buffer(short)
            self._slices[name] = (buffer.dtype, sizes.get(buffer.dtype, 0), buffer.shape)
            sizes[buffer.dtype] = sizes.get(buffer.dtype, 0) + buffer.numel()
            parts.setdefault(buffer.dtype, []).append(buffer.detach().reshape(-1))
        self.flat = {dtype: torch.cat(pieces) for dtype, pieces in parts.items()}
        for module, short, name in owners:
            module._buffers[short] = self._view(self.flat, name)
        self._kept = {dtype: flat.clone() for dtype, flat in self.flat.items()}

    def keep(self) -> None:
        """Note the present values, for `undo`."""
        for dtype, flat in self.flat.items():
            self._kept[dtype].copy_(flat)

    def undo(self, flag: Tensor) -> None:
        """Where `flag` [] is 1, take the values of the last `keep` back; the host does not wait for it."""
        for dtype, flat in self.flat.items():
            flat.copy_(torch.where(flag > 0, self._kept[dtype], flat))

    def tensors(self, flat: dict[torch.dtype, Tensor]) -> dict[str, Tensor]:
        """The buffers by name, as views into flat tensors of this layout."""
        return {name: self._view(flat, name) for name in self._slices}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take the values of all buffers, by name."""
        for name in self._slices:
            self._view(self.flat, name).copy_(tensors[name])

    def _view(self, flat: dict[torch.dtype, Tensor], name: str) -> Tensor:
        dtype, start, shape = self._slices[name]
        return flat[dtype][start : start + shape.numel()].view(shape)
