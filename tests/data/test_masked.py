"""Masked text: the shares of the paper, the same places again from a seed."""

from functools import partial
from pathlib import Path

import pytest
import torch

from labkit import checkpoint, data, models
from labkit.data.masked import IGNORE
from labkit.distributed.parallel.data import shard
from labkit.training import Recipe, Training, fill_masks

MASK = 50


def test_shares_are_those_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(MASK, (400, 500), generator=generator)
    inputs, targets = data.mask_tokens(tokens, 0.15, MASK, generator)
    chosen = targets != IGNORE
    assert torch.equal(targets[chosen], tokens[chosen])
    assert torch.equal(inputs[~chosen], tokens[~chosen])
    masked, same = inputs == MASK, chosen & (inputs == tokens)
    assert not masked[~chosen].any()
    count = int(chosen.sum())
    # Shares of 30,000 places: within four standard deviations. A random token is the old one
    # once in 50 times.
    for found, share in (
        (count / tokens.numel(), 0.15),
        (int(masked.sum()) / count, 0.8),
        (int(same.sum()) / count, 0.1 + 0.1 / MASK),
    ):
        assert abs(found - share) < 4 * (share * (1 - share) / count) ** 0.5


def text() -> data.MaskedText:
    return data.MaskedText(data.speeches(200_000, context=16), share=0.3)


def test_places_change_with_the_epoch_and_repeat_from_the_seed() -> None:
    batches = text().batches(8, seed=3)
    first, second = next(iter(batches)), next(iter(batches))
    assert not torch.equal(first[0], second[0])
    batches.set_epoch(0)
    for ours, again in zip(first, next(iter(batches)), strict=True):
        assert torch.equal(ours, again)
    assert len(batches) == len(text().text.batches(8))


def test_ranks_get_the_parts_of_the_batch() -> None:
    whole = list(text().batches(8, seed=3))
    parts = [list(shard(text().batches(8, seed=3), rank, 2)) for rank in range(2)]
    for number, batch in enumerate(whole):
        for place in range(2):
            joined = torch.cat([parts[rank][number][place] for rank in range(2)])
            assert torch.equal(joined, batch[place])


def test_a_training_resumes_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    def made() -> Training:
        masked = text()
        model = partial(models.transformer, masked.vocabulary, 8, 1, 2, 16, causal=False)
        recipe = Recipe(model, masked, task=fill_masks(), batch_size=8, steps=9, device="cpu")
        return recipe.training()

    whole, losses = made(), []
    for step in whole:
        losses.append(step.loss)
        if step.index == 4:
            checkpoint.save(tmp_path / "half", whole)
    resumed = made()
    checkpoint.load(tmp_path / "half", resumed)
    assert [step.loss for step in resumed] == losses[5:]


def test_a_test_asks_the_same_each_time() -> None:
    batches = text().test_batches()
    for ours, again in zip(batches, batches, strict=True):
        assert all(map(torch.equal, ours, again))


def test_the_mask_is_a_token_of_its_own() -> None:
    masked = text()
    assert masked.vocabulary == masked.text.vocabulary + 1
    inputs, _ = next(iter(masked.batches(8)))
    assert int(inputs.max()) == masked.text.vocabulary
    assert masked.fingerprint == text().fingerprint != data.MaskedText(masked.text).fingerprint
    with pytest.raises(ValueError, match="share must lie between 0 and 1, got 1"):
        data.mask_tokens(torch.zeros(3, dtype=torch.long), 1, 5, torch.Generator())
    with pytest.raises(ValueError, match="share must lie between 0 and 1, got 2"):
        data.MaskedText(masked.text, share=2)
