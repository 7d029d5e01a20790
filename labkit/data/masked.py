"""Masked words: hide some of a text, and let the model say what stood there.

A text needs no labels for that: it is its own. A share of the places is chosen; of these, 80 %
become the mask token, 10 % a random token, and 10 % stay as they are, so that the model cannot
rely on seeing the mask (later, in use, there is none). Targets are the tokens that stood there, and
IGNORE (-100) everywhere else, so that no loss counts the rest.

Source: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2019, section 3.1.
"""

from collections.abc import Iterator
from dataclasses import dataclass

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
        tokens: int64 of any shape, on the CPU.
        share: of the places that are chosen, above 0 and below 1.
        mask: the mask token; all tokens below it may stand in for others.
        generator: of the CPU.

    Raises:
        ValueError: `share` out of range.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share!r}")
    chosen = torch.rand(tokens.shape, generator=generator) < share
    fate = torch.rand(tokens.shape, generator=generator)
    others = torch.randint(mask, tokens.shape, generator=generator)
    hidden = torch.where(fate < MASKED, mask, torch.where(fate < MASKED + REPLACED, others, tokens))
    return torch.where(chosen, hidden, tokens), torch.where(chosen, tokens, IGNORE)


class MaskedBatches:
    """Batches of (inputs with masks, targets): other places in each epoch, the same from a seed."""

    def __init__(self, batches: TextBatches, share: float, mask: int) -> None:
        self.batches, self.share, self.mask = batches, share, mask
        self.device, batches.device = batches.device, torch.device("cpu")
        self._epoch = 0

    def __len__(self) -> int:
        return len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch the next iteration is."""
        self._epoch = epoch
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch = self._epoch if self.batches.shuffle else 0  # a test asks the same each time
        self._epoch += 1
        generator = torch.Generator().manual_seed((self.batches.seed << 20) + epoch)
        for tokens, _ in self.batches:
            inputs, targets = mask_tokens(tokens, self.share, self.mask, generator)
            yield inputs.to(self.device), targets.to(self.device)


@dataclass(frozen=True)
class MaskedText:
    """A text to fill in masks of. The mask token is one more than the text's vocabulary has.

    Args:
        text: such as `speeches()`.
        share: of the places that are asked for, above 0 and below 1.
    """

    text: TextData
    share: float = 0.15

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
        batches = self.text.batches(batch_size, seed=seed, device=device)
        return MaskedBatches(batches, self.share, self.text.vocabulary)

    def test_batches(
        self,
        batch_size: int = 50,
        *,
        memory_format: torch.memory_format = torch.contiguous_format,
        device: torch.device | str = "cpu",
    ) -> MaskedBatches:
        """Return the held-out text in its own order, the same places masked each time."""
        batches = self.text.test_batches(batch_size, device=device)
        return MaskedBatches(batches, self.share, self.text.vocabulary)
