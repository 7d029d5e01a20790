"""Masked words: hide some of a text, and let the model say what stood there.

A text needs no labels for that: it is its own. A share of the places is chosen; of these, 80 %
become the mask token, 10 % a random token, and 10 % stay as they are, so that the model cannot
rely on seeing the mask (later, in use, there is none). Targets are the tokens that stood there, and
IGNORE (-100) everywhere else, so that no loss counts the rest.

Source: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2019, section 3.1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from labkit.data.text import TextBatches, TextData

IGNORE = -100
MASKED, REPLACED = 0.8, 0.1
"""Of the chosen places: become the mask, become any token; the others stay."""


def mask_tokens(
    tokens: Tensor, share: float, mask: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return inputs with places hidden, and targets that are IGNORE elsewhere; both as `tokens`.

    Args:
        tokens: int64 of any shape, on any device.
        share: of the places that are chosen, above 0 and below 1.
        mask: the mask token; all tokens below it may stand in for others.
        generator: of the CPU, so that the places are the same on all devices.

    Raises:
        ValueError: `share` out of range.
    """
    _check_share(share)
    chosen = torch.rand(tokens.shape, generator=generator).to(tokens.device) < share
    fate = torch.rand(tokens.shape, generator=generator).to(tokens.device)
    others = torch.randint(mask, tokens.shape, generator=generator).to(tokens.device)
    hidden = torch.where(fate < MASKED, mask, torch.where(fate < MASKED + REPLACED, others, tokens))
    return torch.where(chosen, hidden, tokens), torch.where(chosen, tokens, IGNORE)


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share!r}")


class MaskedBatches(TextBatches):
    """Batches of (inputs with masks, targets): other places in each epoch, the same from a seed.

    Args:
        text: whose context and vocabulary they have; the mask is one more than its tokens.
        tokens, batch_size: as for `TextBatches`; so are the others.
        share: of the places that are asked for.
    """

    def __init__(
        self, text: TextData, tokens: Tensor, batch_size: int, share: float, **others: Any
    ) -> None:
        super().__init__(tokens, batch_size, text.context, **others)
        self.share, self.mask = share, text.vocabulary

    def indices(self) -> Iterator[Tensor]:
        """Yield the indices of each batch of the next epoch, once its places are chosen.

        All of them at once: what a rank takes of a batch is then masked as the whole batch is.
        """
        epoch = self._next_epoch if self.shuffle else 0  # a test asks the same each time
        generator = torch.Generator().manual_seed((self.seed << 20) + epoch)
        windows = self.tokens[: self.count * self.context].view(self.count, self.context)
        self._hidden = mask_tokens(windows, self.share, self.mask, generator)
        yield from super().indices()

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the masked inputs and the targets at `indices`, as this epoch has them."""
        inputs, targets = self._hidden
        return inputs[indices].to(self.device), targets[indices].to(self.device)


@dataclass(frozen=True)
class MaskedText:
    """A text to fill in masks of. The mask token is one more than the text's vocabulary has.

    Args:
        text: such as `speeches()`.
        share: of the places that are asked for, above 0 and below 1.

    Raises:
        ValueError: `share` out of range.
    """

    text: TextData
    share: float = 0.15

    def __post_init__(self) -> None:
        _check_share(self.share)

    @property
    def vocabulary(self) -> int:
        """Number of different tokens, the mask included."""
        return self.text.vocabulary + 1

    @property
    def train_size(self) -> int:
        """Number of training windows."""
        return self.text.train_size

    @property
    def fingerprint(self) -> str:
        """A text that differs where a token or the share does."""
        return f"masked {self.share} {self.text.fingerprint}"

    def batches(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        memory_format: torch.memory_format = torch.contiguous_format,
        device: torch.device | str = "cpu",
    ) -> MaskedBatches:
        """Return shuffled batches of (inputs, targets); see `TextData.batches`."""
        text, share = self.text, self.share
        return MaskedBatches(text, text.train_tokens, batch_size, share, seed=seed, device=device)

    def test_batches(
        self,
        batch_size: int = 50,
        *,
        memory_format: torch.memory_format = torch.contiguous_format,
        device: torch.device | str = "cpu",
    ) -> MaskedBatches:
        """Return the held-out text in its own order, the same places masked each time."""
        text, share = self.text, self.share
        return MaskedBatches(
            text, text.test_tokens, batch_size, share, shuffle=False, device=device
        )
