"""A small decoder-only transformer: it reads tokens and says which token comes next.

Every large language model of today is this, only wider and deeper: an embedding, a stack of equal
blocks, a head. A block adds twice to a residual stream of `width` numbers a token: attention lets
tokens look at earlier ones, the MLP thinks about each token alone. The norm stands before each of
the two (pre-norm), so that the stream itself is never rescaled and deep stacks train.

It is written to be cut. Between blocks only the stream passes, so a pipeline can part them;
queries, keys and values are linear layers of their own and heads are counted from what those give,
so a rank that holds half of their columns works with half of the heads; embedding and head do not
share a weight, because a pipeline puts them on different machines.

Source: Vaswani et al., "Attention Is All You Need", 2017; blocks and initialisation after
Radford et al., "Language Models are Unsupervised Multitask Learners" (GPT-2), 2019.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.checks import check_positive_int


class Embedding(nn.Module):
    """Tokens int64 (batch, time) to vectors (batch, time, width): what it is plus where it is."""

    def __init__(self, vocabulary: int, width: int, context: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return token vector + position vector.

        Raises:
            ValueError: the text is longer than the context.
        """
        time, context = tokens.shape[-1], self.position.num_embeddings
        if time > context:
            raise ValueError(f"tokens must be at most {context} long, the context, got {time}")
        places = torch.arange(time, device=tokens.device)
        vectors: Tensor = self.token(tokens) + self.position(places)
        return vectors


class Attention(nn.Module):
    """Self-attention on (batch, time, width): a token looks at itself and, if causal, back only.

    A head has `head_width` numbers; how many heads there are follows from what `query` gives.
    """

    def __init__(self, width: int, heads: int, causal: bool = True) -> None:
        super().__init__()
        self.head_width, self.causal = width // heads, causal
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return softmax(q k' / sqrt(head_width)) v of all heads, joined and projected."""
        query, key, value = (
            layer(x).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        out: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Four times wider, GELU, and back: (batch, time, width) to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return down(gelu(up(x)))."""
        out: Tensor = self.down(F.gelu(self.up(x)))
        return out


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), on (batch, time, width)."""

    def __init__(self, width: int, heads: int, causal: bool = True) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads, causal)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual stream after this block."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Transformer(nn.Module):
    """Embedding, blocks, norm, head."""

    def __init__(
        self, vocabulary: int, width: int, depth: int, heads: int, context: int, causal: bool
    ) -> None:
        super().__init__()
        self.embedding = Embedding(vocabulary, width, context)
        self.blocks = nn.ModuleList(Block(width, heads, causal) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self._initialise(depth)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (batch, time, vocabulary) for tokens int64 (batch, time)."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def _initialise(self, depth: int) -> None:
        """Small weights; those that add to the stream are smaller the more of them there are."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.endswith(("output.weight", "down.weight")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * depth))
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)


def transformer(
    vocabulary: int,
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    context: int = 64,
    causal: bool = True,
) -> Transformer:
    """Return a Transformer for tokens int64 (batch, time), with time up to `context`.

    Args:
        vocabulary: number of different tokens.
        width: numbers that describe a token, a multiple of `heads`.
        depth: number of blocks.
        heads: of attention in each block.
        context: most tokens that it can look at.
        causal: whether a token sees only itself and earlier ones. To say the next one it must; to
            fill in masks it needs both sides.

    Raises:
        ValueError: a size is not a positive whole number, or `heads` does not divide `width`.
    """
    sizes = {"vocabulary": vocabulary, "width": width, "depth": depth}
    for name, value in (sizes | {"heads": heads, "context": context}).items():
        check_positive_int(name, value)
    if width % heads:
        raise ValueError(f"width must be a multiple of heads ({heads}), got {width}")
    return Transformer(vocabulary, width, depth, heads, context, causal)


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats over the targets that count.

    Args:
        logits: float (batch, time, vocabulary).
        targets: int64 (batch, time), the tokens that really came next; -100 where none counts.

    Raises:
        ValueError: the shapes do not fit, or there are no targets.
    """
    if logits.shape[:-1] != targets.shape or not targets.numel():
        raise ValueError(
            "logits must be (batch, time, vocabulary) for targets (batch, time), none of them 0, "
            f"got {tuple(logits.shape)} for {tuple(targets.shape)}"
        )
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten())
