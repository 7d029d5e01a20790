"""How much memory a call needs at its peak, and what a forward pass keeps for its backward.

Training needs memory for four things: parameters, gradients, the optimizer's state, and the
activations that the forward pass keeps until the backward pass has used them. The first three
depend on the model only; the last grows with the batch, and is what mixed precision and activation
checkpointing shrink.

Both figures are counted, not sampled. The resident size that the operating system reports comes in
pages, keeps what the allocator has not handed back, and misses a peak between two readings. Here
every allocation that torch makes is seen: through the profiler's memory events on a CPU, through
the caching allocator's own counter on a GPU.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from labkit import facts
from labkit.checks import device_of
from labkit.measure.quiet_profiler import without_engine_lines
from labkit.measure.untouched import untouched


def peak_memory(function: Callable[[], object], *, device: torch.device | str | None = None) -> int:
    """Return the peak of the memory that torch allocates while `function` runs, in bytes.

    Counted is what `function` allocates, above what was held when it started. On a GPU, sizes are
    rounded up to the allocator's blocks (512 bytes), and memory that was held before and is freed
    inside makes room; on a CPU, sizes are exact and such memory does not count. So call
    `zero_grad` before, not inside. Only the calling thread and torch's own are seen, not NumPy.

    Args:
        function: called once, without arguments.
        device: whose memory is counted; None is the default device of `labkit.facts`.

    Raises:
        ValueError: the device is neither a CPU nor a CUDA device.
    """
    where = device_of(device) if device is not None else facts.default_device()
    if where.type == "cuda":
        return _peak_cuda(function, where)
    if where.type == "cpu":
        return _peak_cpu(function)
    raise ValueError(f"device must be a cpu or cuda device, got {where}")


def saved_bytes(
    model: nn.Module, loss_function: Callable[..., torch.Tensor], *batch: torch.Tensor
) -> int:
    """Return the bytes that the forward pass keeps for the backward pass.

    Each block of memory counts once, however many operations keep it or a view of it. Parameters,
    buffers and the batch itself do not count: they are held anyway. Under autocast, the copies of
    weights and batch in the lower precision do count: the backward pass needs them. The model's
    buffers and the random generators are left as they were.

    Args:
        model: called as `model(*batch[:-1])`.
        loss_function: called as `loss_function(output, batch[-1])`.
        batch: the model's inputs, then the target.

    Raises:
        TypeError: `model` is not a module, or the batch holds something else than tensors.
        ValueError: the batch has fewer than two tensors, or the model does not take it.
    """
    _check_batch(batch)
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        # Holding the storage keeps its address from being given to another one meanwhile.
        if _address(tensor) not in held:
            kept[_address(tensor)] = tensor.untyped_storage()
        return tensor.detach()

    *inputs, target = batch
    with untouched(model, *batch), torch.enable_grad():
        held = {_address(t) for t in (*model.parameters(), *model.buffers(), *batch)}
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss_function(model(*inputs), target)
    return sum(storage.nbytes() for storage in kept.values())


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _check_batch(batch: tuple[torch.Tensor, ...]) -> None:
    if len(batch) < 2:
        raise ValueError(f"batch must be the inputs and then the target, got {len(batch)} tensors")
    for index, part in enumerate(batch):
        if not isinstance(part, torch.Tensor):
            raise TypeError(f"batch[{index}] must be a tensor, got {type(part).__name__}")


def _peak_cuda(function: Callable[[], object], device: torch.device) -> int:
    facts.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    function()
    facts.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_cpu(function: Callable[[], object]) -> int:
    with (
        without_engine_lines(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler,
    ):
        function()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))  # the public form that has each event's address
        trace = json.loads(path.read_text(encoding="utf-8"))
    events = [
        event
        for event in trace["traceEvents"]
        if event.get("name") == "[memory]" and event["args"]["Device Type"] == _CPU
    ]
    return _running_peak(sorted(events, key=lambda event: float(event["ts"])))


_CPU = 0  # torch's number for this type of device in the profiler's events


def _running_peak(events: list[dict[str, Any]]) -> int:
    """Follow allocations and releases in order of time, and return the highest sum of live bytes.

    A release counts only if its allocation was seen. torch reports others too, if an earlier
    profile happened to see them being allocated: the result must not depend on that.
    """
    live: dict[int, int] = {}
    total = peak = 0
    for event in events:
        address, size = event["args"]["Addr"], event["args"]["Bytes"]
        if size > 0:
            live[address] = size
            total += size
            peak = max(peak, total)
        else:
            total -= live.pop(address, 0)
    return peak
