"""Speeches: real English to learn language from, in pieces of words.

233 State of the Union speeches of the presidents of the United States, 1790 to 2021: formal,
clean, free of rights, and small enough to ship. A network reads numbers, so text is cut into
tokens: frequent words are one token, rare ones several, and any byte has one, so nothing is ever
unknown and the text can be read back exactly (byte-level BPE).

A language model learns to say the next token at every place at once: targets are the inputs moved
by one. Whole speeches are held out for testing, or the model would be asked what it has read.

Source: Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", 2016, for
byte-pair encoding.
"""

import json
import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from labkit.checks import check_positive_int, explaining, form
from labkit.data.batches import EpochBatches
from labkit.data.files import data_root, verified
from labkit.fingerprint import fingerprint

FILE, TOKENIZER = "speeches/speeches.jsonl.xz", "speeches/tokenizer.json"
END = 0
"""The token that ends a speech."""
HELD_OUT = 10
"""Each tenth speech is for testing."""


class TextBatches(EpochBatches):
    """An iterable of (inputs, targets), both int64 (batch, context); see `EpochBatches`.

    The text is cut into windows that do not overlap, and they come in a new order each epoch.

    Args:
        tokens: int64 (n,).
        batch_size: windows in a batch.
        context: tokens in a window.
        seed: order of the epochs.
        shuffle: new order each epoch, or the order of the text always.
        device: where the batches are delivered.

    Raises:
        ValueError: a size is not a positive whole number, or the text is too short for a batch.
        TypeError: tokens that are not int64.
    """

    def __init__(
        self,
        tokens: Tensor,
        batch_size: int,
        context: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        check_positive_int("context", context)
        if tokens.dtype != torch.int64 or tokens.dim() != 1:
            raise TypeError(f"tokens must be int64 (n,), got {form(tokens)}")
        windows = (len(tokens) - 1) // context  # the last target is one token further on
        if windows < 1:
            raise ValueError(f"tokens must be more than context ({context}), got {len(tokens)}")
        super().__init__(windows, batch_size, seed, shuffle, device)
        self.tokens, self.context = tokens, context

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the windows with these numbers, and the same moved by one token."""
        places = indices[:, None] * self.context + torch.arange(self.context)
        inputs, targets = self.tokens[places], self.tokens[places + 1]
        return inputs.to(self.device), targets.to(self.device)


@dataclass(frozen=True, eq=False)
class TextData:
    """Tokens to train on and to test with.

    Attributes:
        train_tokens, test_tokens: int64 (n,); each speech ends with the token END.
        context: tokens in a window.
        vocabulary: number of different tokens.
        characters: in the speeches that were taken.
    """

    train_tokens: Tensor
    test_tokens: Tensor
    context: int
    vocabulary: int
    characters: int
    _tokenizer: Any  # of tokenizers, which only those who read text import

    def __repr__(self) -> str:
        sizes = f"{len(self.train_tokens):,} + {len(self.test_tokens):,} tokens"
        return f"speeches({sizes}, context {self.context})"

    @property
    def train_size(self) -> int:
        """Number of training windows."""
        return (len(self.train_tokens) - 1) // self.context

    @cached_property
    def fingerprint(self) -> str:
        """A text that differs where any token does."""
        return fingerprint((self.train_tokens, self.test_tokens, self.context, self.vocabulary))

    def batches(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        memory_format: torch.memory_format = torch.contiguous_format,
        device: torch.device | str = "cpu",
    ) -> TextBatches:
        """Return the training text as shuffled batches of (inputs, targets).

        `memory_format` is that of images, so that a recipe can ask all data alike: text has none.
        """
        return TextBatches(self.train_tokens, batch_size, self.context, seed=seed, device=device)

    def test_batches(
        self,
        batch_size: int = 50,
        *,
        memory_format: torch.memory_format = torch.contiguous_format,
        device: torch.device | str = "cpu",
    ) -> TextBatches:
        """Return the held-out text as batches in its own order; the last one may be smaller."""
        return TextBatches(self.test_tokens, batch_size, self.context, shuffle=False, device=device)

    def encode(self, text: str) -> Tensor:
        """Return the tokens of a text, int64 (n,).

        Raises:
            ValueError: half of a surrogate pair, which no text has.
        """
        with explaining(f"encoding {text[:20]!r}"):
            return torch.tensor(self._tokenizer.encode(text).ids, dtype=torch.int64)

    def decode(self, tokens: Tensor | Sequence[int]) -> str:
        """Return the text of tokens; whatever `encode` made comes back exactly.

        Raises:
            ValueError: a token that the vocabulary does not have.
        """
        numbers = list(map(int, tokens))
        if not all(0 <= number < self.vocabulary for number in numbers):
            raise ValueError(f"tokens must lie in 0 … {self.vocabulary - 1}, got {numbers}")
        return str(self._tokenizer.decode(numbers, skip_special_tokens=False))


def speeches(characters: int = 1_000_000, *, context: int = 64) -> TextData:
    """Return the latest speeches, as tokens.

    Args:
        characters: takes whole speeches, from the last back, until they have as many; at least
            six speeches (0.2 million). There are 10.8 million, or 2.5 million tokens.
        context: tokens in a window of the batches.

    Raises:
        ValueError: a number is not positive, or more than there is; or a data file is damaged.
        FileNotFoundError: a data file is missing.
    """
    check_positive_int("characters", characters)
    check_positive_int("context", context)
    root = data_root()
    texts = _latest(root, characters)
    tokenizer = _tokenizer(root)
    # One speech at a time: encoding many at once would start threads.
    encoded = [torch.tensor([*tokenizer.encode(text).ids, END]) for text in texts]
    test = encoded[HELD_OUT // 2 :: HELD_OUT]
    train = [ids for number, ids in enumerate(encoded) if number % HELD_OUT != HELD_OUT // 2]
    return TextData(
        train_tokens=torch.cat(train),
        test_tokens=torch.cat(test),
        context=context,
        vocabulary=tokenizer.get_vocab_size(),
        characters=sum(map(len, texts)),
        _tokenizer=tokenizer,
    )


def _latest(root: Path, characters: int) -> list[str]:
    """Return the latest speeches, from the last back, with at least so many characters."""
    with lzma.open(verified(root, FILE, "make_speeches.py"), "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    taken: list[str] = []
    while sum(map(len, taken)) < characters or len(taken) <= HELD_OUT // 2:
        if not texts:
            raise ValueError(
                f"characters must be at most {sum(map(len, taken)):,}, got {characters:,}"
            )
        taken.append(texts.pop())
    return taken


def _tokenizer(root: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(verified(root, TOKENIZER, "make_speeches.py")))
