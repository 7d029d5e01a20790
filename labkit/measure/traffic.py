"""Count the bytes that a call reads and writes, operation by operation.

Eager PyTorch runs one kernel after another. Each reads its inputs from memory and writes its
outputs back, so a step's traffic is the sum over its operations. That makes a chain of small
operations (norm, activation, addition) slow: it moves much and computes little. FLOPs divided by
these bytes is the arithmetic intensity that places a call under the roofline.

It is a bound from above: nothing is credited to caches (an output that is read at once is often
still there) or to fusion by a compiler. It is not what a hardware counter would show.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def traffic(function: Callable[[], object]) -> int:
    """Return the bytes that the operations of one call of `function` read and write.

    Each operation's inputs count once and its outputs once. Views are free, as is allocating
    without filling. An operation in place reads and writes; one that only fills or copies does not
    read what it overwrites. Looking up rows (embedding, indexing) reads as much as it returns.

    Args:
        function: called once, without arguments. What it changes stays changed.

    """
    with _Counter() as counter:
        function()
    total: int = counter.bytes
    return total


# They overwrite their first argument without reading it.
_OVERWRITES = {"copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_", "random_"}
# They read from their first argument no more than they return.
_LOOKUPS = {"embedding", "index", "index_select", "gather"}
_ALLOCATES = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation after autograd and autocast, on its way to the kernel."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        self.bytes += _bytes_of(func, args, kwargs, output)
        return output


def _bytes_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> int:
    name = func._schema.name.partition("::")[2]
    changed = _tensors(_changed_arguments(func, args, kwargs))
    if name in _ALLOCATES or (not changed and _is_view(args, kwargs, output)):
        return 0
    # An operation in place returns its argument: the same memory is not written twice.
    written = {_place(t): t for t in (*changed, *_tensors(output))}
    write = sum(_touched(t) for t in written.values())
    read = {_place(t): t for t in _tensors(_read_arguments(func, name, args, kwargs))}
    if name in _LOOKUPS:
        source = read.pop(_place(args[0]), None)
        write += min(_touched(source), write) if source is not None else 0
    return write + sum(_touched(t) for t in read.values())


def _changed_arguments(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that the operation's schema marks as written to."""
    schema = func._schema.arguments
    pairs = [
        *zip(schema, args, strict=False),
        *((a, kwargs.get(a.name)) for a in schema[len(args) :]),
    ]
    return [value for a, value in pairs if a.alias_info is not None and a.alias_info.is_write]


def _read_arguments(
    func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Any]:
    """The arguments without those that are not read: filled ones, `out=`, models of a shape."""
    out = {a.name for a in func._schema.arguments if a.is_out}
    named = [value for key, value in kwargs.items() if key not in out]
    first_unread = name in _OVERWRITES or name.endswith("_like") or name.startswith("new_")
    return [*args[1 if first_unread else 0 :], *named]


def _is_view(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> bool:
    """Whether all outputs lie in the memory of inputs, so that nothing was moved."""
    sources = {_storage(t) for t in (*_tensors(args), *_tensors(kwargs))}
    outputs = _tensors(output)
    return bool(outputs) and all(_storage(t) in sources for t in outputs)


def _tensors(tree: Any) -> list[torch.Tensor]:
    leaves: Iterable[Any] = tree_leaves(tree)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _storage(tensor: torch.Tensor) -> int:
    identity: int = tensor.untyped_storage()._cdata
    return identity


def _place(tensor: torch.Tensor) -> tuple[Any, ...]:
    return (_storage(tensor), tensor.storage_offset(), tensor.shape, tensor.stride())


def _touched(tensor: torch.Tensor) -> int:
    """Bytes of distinct memory: a dimension that was expanded repeats the same bytes."""
    elements = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        elements *= size if stride != 0 else min(size, 1)
    return elements * tensor.element_size()
