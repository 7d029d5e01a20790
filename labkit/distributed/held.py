"""How many bytes of activations are alive at the worst moment of a step.

Autograd keeps tensors of the forward pass until the backward pass has used them. `Held` is told of
each one that is kept (`torch.autograd.graph.saved_tensors_hooks`), hands autograd a small box with
the tensor in it, and notes when the box dies. So the peak is that of the run itself, whatever the
order of forward and backward passes was. It slows a step down: count and time in different steps.

`labkit.measure.saved_bytes` gives the same bytes for one forward pass on its own.
"""

from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


class Held:
    """Count while the `with` block runs: `with Held(model) as held: …; held.peak`.

    Each block of memory counts once, however many operations keep it or a view of it. Parameters
    and buffers of `model` do not count, nor does the batch: they are held anyway.

    Args:
        model: all that runs in the block.
        batch: tensors that are there before the block and after it.

    Attributes:
        now: bytes that are held at this moment.
        peak: bytes that were held at the worst moment so far.

    Raises:
        TypeError: `model` is not a module.
    """

    def __init__(self, model: nn.Module, *batch: Tensor) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch module, got {type(model).__name__}")
        self.now = self.peak = 0
        there = (*model.parameters(), *model.buffers(), *batch)
        self._there = {_address(tensor) for tensor in there}
        self._boxes: dict[int, int] = {}  # address of a block of memory: how many boxes hold it
        self._hooks = saved_tensors_hooks(self._pack, _Box.open)

    def __enter__(self) -> Self:
        self._hooks.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hooks.__exit__(kind, error, trace)

    def _pack(self, tensor: Tensor) -> "_Box":
        return _Box(self, tensor)

    def add(self, storage: torch.UntypedStorage) -> None:
        """Note that one more box holds `storage`."""
        address = storage.data_ptr()
        if address in self._there:
            return
        self._boxes[address] = self._boxes.get(address, 0) + 1
        if self._boxes[address] == 1:
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)

    def remove(self, storage: torch.UntypedStorage) -> None:
        """Note that one box less holds `storage`."""
        address = storage.data_ptr()
        if address in self._there:
            return
        self._boxes[address] -= 1
        if not self._boxes[address]:
            del self._boxes[address]
            self.now -= storage.nbytes()


class _Box:
    """What autograd keeps in place of a tensor."""

    def __init__(self, held: Held, tensor: Tensor) -> None:
        self._held, self._tensor = held, tensor.detach()  # the tensor itself would be a cycle
        held.add(self._tensor.untyped_storage())

    def open(self) -> Tensor:
        return self._tensor

    def __del__(self) -> None:
        self._held.remove(self._tensor.untyped_storage())


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
