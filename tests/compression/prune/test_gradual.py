"""Masks that hold while a model trains, and masks that grow."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from support import pruning as support
from support.common import tiny_recipe
from torch import Tensor, nn

from labkit import checkpoint, models
from labkit.compression.prune import (
    apply_masks,
    cubic_sparsity,
    grow,
    hold,
    magnitude_masks,
    sparsity,
)
from labkit.training import Training, average_weights, train


def trained_before(kind: type[torch.optim.Optimizer]) -> tuple[nn.Module, list, object]:
    """A model whose optimizer is full of momentum of weights that are masked only later."""
    model, images = support.make("convnet", batch=8)
    settings = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind(model.parameters(), lr=0.01, **settings)
    batches = [(images, torch.arange(8))]
    list(train(model, batches, optimizer, epochs=3))
    return model, batches, optimizer


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_held_weights_are_zero_in_every_forward_pass(kind: type[torch.optim.Optimizer]) -> None:
    model, batches, optimizer = trained_before(kind)
    masks, seen = magnitude_masks(model, 0.8), []
    before = support.snapshot(model)
    model.register_forward_pre_hook(lambda module, _: seen.append(sparsity(module)))
    losses = [
        step.loss for step in train(model, batches, optimizer, epochs=12, between=(hold(masks),))
    ]
    assert min(seen) == pytest.approx(0.8, abs=0.005) and len(seen) == 12
    assert losses[-1] < losses[0]
    after = dict(model.named_parameters())
    for name, mask in masks.items():
        assert not after[name][~mask].any()
        assert (after[name][mask] != before[name][mask]).any()


def test_masks_that_are_not_held_are_lost_to_momentum() -> None:
    """Why `hold` works after each step: the plant that the test above would miss."""
    model, batches, optimizer = trained_before(torch.optim.SGD)
    apply_masks(model, magnitude_masks(model, 0.8))
    assert sparsity(model) > 0.7
    list(train(model, batches, optimizer))
    assert sparsity(model) < 0.1


def test_masks_of_another_model_are_refused_before_the_first_step() -> None:
    recipe = tiny_recipe(between=(hold(magnitude_masks(models.mlp(), 0.5)),))
    training = recipe.training()
    with pytest.raises(ValueError, match="masks are of another model"):
        next(iter(training))
    assert training.index == 0


def test_gradual_schedule_is_that_of_the_paper() -> None:
    shares = [cubic_sparsity(t / 10, 0.9, 0.1) for t in range(11)]
    assert shares[0] == pytest.approx(0.1) and shares[-1] == pytest.approx(0.9)
    assert shares[5] == pytest.approx(0.9 - 0.8 / 8)
    steps = [b - a for a, b in pairwise(shares)]
    assert all(step > 0 for step in steps)
    assert steps == sorted(steps, reverse=True)


def test_growing_follows_the_schedule_and_ends_where_it_should() -> None:
    training = tiny_recipe(between=(grow(0.9, until=0.5, every=2),)).training()
    assert training.total == 10
    found = [(sparsity(training.model)) for _ in training]
    wanted = [cubic_sparsity(min(1, 2 * done / 10), 0.9) for done in (1, 3, 5, 7, 9, 10)]
    assert [found[i] for i in (0, 2, 4, 6, 8, 9)] == pytest.approx(wanted, abs=1e-3)
    assert found[1] == found[0] and found[3] == found[2]  # held in between


def test_a_training_shorter_than_a_choice_ends_where_it_should() -> None:
    training = tiny_recipe(between=(grow(0.9, every=100),), steps=3).training()
    list(training)
    assert sparsity(training.model) == pytest.approx(0.9, abs=1e-3)


@pytest.mark.parametrize("cut", [1, 4, 7])
def test_masks_between_two_choices_come_back_with_the_checkpoint(tmp_path: Path, cut: int) -> None:
    recipe = tiny_recipe(between=(grow(0.9, every=3),))
    whole, resumed = recipe.training(), recipe.but(seed=1).training()
    for step in whole:
        if step.index + 1 == cut:
            checkpoint.save(tmp_path / "half", whole)
    resumed.stream.batches.seed = recipe.seed
    checkpoint.load(tmp_path / "half", resumed)
    list(resumed)

    def state(training: Training) -> dict[str, Tensor]:
        return training.model.state_dict()

    assert all(torch.equal(state(resumed)[name], value) for name, value in state(whole).items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"final": 1.5}, "final must be a number from 0 to 1, got 1.5"),
        ({"final": True}, "final must be a number from 0 to 1"),
        ({"final": 0.5, "until": 0}, "until must be above 0"),
        ({"final": 0.5, "until": 2.0}, "until must be a number from 0 to 1"),
        ({"final": 0.5, "every": 0}, "every"),
    ],
)
def test_refuses_bad_values(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grow(**arguments)
    with pytest.raises(ValueError, match="progress must be"):
        cubic_sparsity(1.5, 0.9)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("make", [lambda: grow(0.8, until=0.5, every=3), None])
def test_an_average_of_the_weights_is_as_sparse(make, order: int) -> None:
    recipe = tiny_recipe(epochs=2)
    masks = magnitude_masks(recipe.training().model, 0.8, together=True)
    between = (hold(masks) if make is None else make(), average_weights(0.5))[::order]
    model = recipe.but(between=between).trained()
    assert sparsity(model) == pytest.approx(0.8, abs=0.01)
