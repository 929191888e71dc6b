"""What arrives at a block, batch by batch: in memory up to a size, the rest on disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from lowrank_utils.network.blocks import Slot

Values = dict[Slot, Tensor]


class Kept:
    """What arrives at a block, for each batch: in memory up to a size, the rest on disk.

    Args:
        room_bytes: Size up to which it is kept in memory.
    """

    def __init__(self, room_bytes: float) -> None:
        self.room_bytes, self.used_bytes = room_bytes, 0
        self._kept: dict[int, Values | Path] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def put(self, i: int, values: Values) -> None:
        """Keep these for batch i, in the place of older ones."""
        self._drop(i)
        size = _size_bytes(values)
        if self.used_bytes + size <= self.room_bytes:
            self._kept[i] = values
            self.used_bytes += size
            return
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="lowrank_utils_")
        path = Path(self._folder.name) / f"{i}.pt"
        torch.save({slot: x.clone() for slot, x in values.items()}, path)  # a view would save the whole
        self._kept[i] = path

    def get(self, i: int) -> Values:
        """A copy, since a model may write into it."""
        found = self._kept[i]
        if isinstance(found, Path):
            loaded: Values = torch.load(found)
            return loaded
        return {slot: x.clone() for slot, x in found.items()}

    def close(self) -> None:
        """Forget everything."""
        self._kept.clear()
        if self._folder is not None:
            self._folder.cleanup()

    def _drop(self, i: int) -> None:
        old = self._kept.pop(i, None)
        if isinstance(old, dict):
            self.used_bytes -= _size_bytes(old)


def _size_bytes(values: Values) -> int:
    return sum(x.numel() * x.element_size() for x in values.values())
