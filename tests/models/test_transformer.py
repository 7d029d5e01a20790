"""The transformer: what it may look at, its size, where it starts, that it can be cut."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from labkit import models
from labkit.models import next_token_loss
from labkit.training import next_token, train


def small(**changes) -> models.Transformer:
    torch.manual_seed(0)
    sizes = {"vocabulary": 50, "width": 16, "depth": 2, "heads": 4, "context": 12}
    return models.transformer(**(sizes | changes))


def tokens(batch: int = 3, time: int = 12) -> torch.Tensor:
    return torch.randint(50, (batch, time), generator=torch.Generator().manual_seed(1))


def test_a_later_token_changes_nothing_before_it() -> None:
    model, text = small(), tokens()
    changed = text.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 50
    before, after = model(text), model(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7], rtol=0, atol=1e-6)
    assert (before[:, 7:] - after[:, 7:]).abs().amax(dim=(0, 2)).min() > 1e-6


@pytest.mark.parametrize(("width", "depth"), [(16, 2), (32, 3)])
def test_the_number_of_parameters(width: int, depth: int) -> None:
    # a block: four projections and an MLP of 8 width² with biases, two norms
    block = 4 * (width**2 + width) + 8 * width**2 + 5 * width + 4 * width
    expected = 50 * width + 12 * width + depth * block + 2 * width + 50 * width
    model = small(width=width, depth=depth)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_it_starts_by_knowing_nothing() -> None:
    logits = small(width=64)(tokens(64))
    assert next_token_loss(logits, tokens(64).flip(0)).item() == pytest.approx(
        math.log(50), rel=0.02
    )


def test_attention_is_the_papers_formula() -> None:
    attention = small().blocks[0].attention
    x = torch.randn(2, 5, 16)
    heads = []
    for head in range(4):
        q, k, v = (
            layer(x)[..., 4 * head : 4 * head + 4]
            for layer in (attention.query, attention.key, attention.value)
        )
        scores = q @ k.mT / math.sqrt(4)
        future = torch.ones(5, 5, dtype=torch.bool).triu(1)
        heads.append(scores.masked_fill(future, -torch.inf).softmax(-1) @ v)
    torch.testing.assert_close(attention(x), attention.output(torch.cat(heads, -1)))


def test_a_block_is_torchs_pre_norm_layer() -> None:
    block = small().blocks[0]
    for parameter in block.parameters():  # biases start at 0, where they would prove nothing
        nn.init.normal_(parameter, std=0.3)
    theirs = nn.TransformerEncoderLayer(
        16, 4, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    attention, mlp = block.attention, block.mlp
    joined = [attention.query, attention.key, attention.value]
    weights = {
        "self_attn.in_proj_weight": torch.cat([layer.weight for layer in joined]),
        "self_attn.in_proj_bias": torch.cat([layer.bias for layer in joined]),
    }
    layers = {
        "self_attn.out_proj": attention.output,
        "linear1": mlp.up,
        "linear2": mlp.down,
        "norm1": block.norm1,
        "norm2": block.norm2,
    }
    for name, layer in layers.items():
        weights |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    theirs.load_state_dict(weights)
    x = torch.randn(2, 5, 16)
    future = nn.Transformer.generate_square_subsequent_mask(5)
    torch.testing.assert_close(block(x), theirs(x, src_mask=future, is_causal=True))


def test_a_token_at_another_place_is_another_vector() -> None:
    embedding, text = small().embedding, torch.tensor([[7, 7, 9]])
    token, position = embedding.token.weight, embedding.position.weight
    torch.testing.assert_close(embedding(text), token[text] + position[:3])


def test_the_same_seed_starts_the_same_weights() -> None:
    first, again = small(), small()
    assert all(map(torch.equal, first.parameters(), again.parameters()))
    assert not any(p.any() for n, p in first.named_parameters() if n.endswith("bias"))


def test_the_weights_that_add_to_the_stream_start_smaller() -> None:
    model = small(width=128, depth=8)
    down = model.blocks[3].mlp.down.weight.std().item()
    assert down == pytest.approx(0.02 / math.sqrt(16), rel=0.05)
    assert model.blocks[3].mlp.up.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_it_learns_a_text_by_heart_in_our_loop() -> None:
    text = tokens(4, 13)
    model = small(width=32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batches = [(text[:, :-1], text[:, 1:])]
    losses = [s.loss for s in train(model, batches, optimizer, task=next_token(), steps=60)]
    assert losses[0] > 3.5
    assert losses[-1] < 0.1


def test_the_cut_model_is_the_model() -> None:
    model, text = small(), tokens()
    first = model.blocks[0](model.embedding(text))
    second = model.head(model.norm(model.blocks[1](first)))
    assert torch.equal(second, model(text))


def test_half_of_the_columns_are_half_of_the_heads() -> None:
    attention = small().blocks[0].attention
    x = torch.randn(2, 5, 16)
    whole = attention(x)
    weight, bias = attention.output.weight.data, attention.output.bias.data
    parts = []
    layers = (attention.query, attention.key, attention.value)
    stored = [(layer.weight.data, layer.bias.data) for layer in layers]
    for half in (slice(0, 8), slice(8, 16)):
        for layer, (w, b) in zip(layers, stored, strict=True):
            layer.weight.data, layer.bias.data = w[half], b[half]
        attention.output.weight.data = weight[:, half]
        attention.output.bias.data = bias / 2
        parts.append(attention(x))
    torch.testing.assert_close(sum(parts), whole)


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="heads"):
        small(heads=3)
    with pytest.raises(ValueError, match="depth"):
        small(depth=0)
    with pytest.raises(ValueError, match="at most 12"):
        small()(tokens(time=13))
