"""Parameters of a sharded model, and what they answer while their numbers lie on several ranks.

A parameter whose memory was given back still has a name and a shape, and the model still holds it.
What reads it would find another tensor's numbers, or no memory at all. So it refuses, with the
remedy, as torch's own `UninitializedParameter` does. Likewise its gradient, once that is shards: no
gradient at all would look like a norm of 0, and nothing would be clipped.
"""

from typing import Any

import torch
from torch import Tensor, nn

_ANSWERS = {
    *("shape", "size", "dim", "ndim", "numel", "nelement", "dtype", "device", "layout"),
    *("is_floating_point", "is_complex", "is_sparse", "is_cuda", "is_meta", "get_device"),
    *("requires_grad", "requires_grad_", "grad", "grad_fn", "is_leaf", "__hash__", "_version"),
    *("register_hook", "register_post_accumulate_grad_hook", "_backward_hooks", "_is_param"),
    "_post_accumulate_grad_hooks",
}
"""What can be said without a look at the numbers."""


_GRAD: Any = Tensor.grad


class Whole(nn.Parameter):
    """A parameter that is a view of its unit's flat tensor.

    Attributes:
        reduced: its gradient has become shards, one on each rank.
    """

    reduced = False

    @property
    def grad(self) -> Tensor | None:
        """The gradient of this rank's own pass.

        Raises:
            RuntimeError: it is shards by now.
        """
        if self.reduced:
            raise RuntimeError(
                "this gradient lies in shards on several ranks: to clip it, call clip() of its "
                "Sharded; step() uses it up"
            )
        gradient: Tensor | None = _GRAD.__get__(self)
        return gradient

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        _GRAD.__set__(self, value)


class Freed(Whole):
    """The same parameter while its weights are shards: nothing can read or set them."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer what needs no numbers; refuse the rest."""
        # A property comes as the `__get__` or `__set__` of its descriptor.
        named = getattr(func, "__self__", None) if func.__name__ in ("__get__", "__set__") else func
        if getattr(named, "__name__", "") not in _ANSWERS:
            raise RuntimeError(
                "these weights lie in shards on several ranks: call gather() of their Sharded, on "
                "all ranks, to read, save or set them"
            )
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


def check_elementwise(kind: type[torch.optim.Optimizer], settings: dict[str, Any]) -> None:
    """Refuse an optimizer for which it matters where a number lies, by trying it on two rows.

    Raises:
        ValueError: it cannot work on pieces of a tensor, or they come out otherwise than the whole.
    """
    start = torch.linspace(-1.0, 1.0, 8, dtype=torch.float64)
    gradient, results = torch.sin(9 * start), []
    for pieces in (start.split_with_sizes([3, 3, 2]), [start.view(2, 4)]):
        parameters = [nn.Parameter(piece.clone()) for piece in pieces]
        optimizer = kind(parameters, **settings)
        for number in (1, 2):
            rest = gradient * number
            for parameter in parameters:
                now, rest = rest.tensor_split([parameter.numel()])
                parameter.grad = now.clone().view_as(parameter)
            try:
                optimizer.step()
            except Exception as error:
                raise ValueError(f"optimizer {kind.__name__} cannot step: {error}") from error
        results.append(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    if not torch.allclose(results[0], results[1], rtol=1e-9):
        raise ValueError(
            f"optimizer must treat each number alone, so that it does not matter where it lies: "
            f"{kind.__name__} looks at whole tensors"
        )
