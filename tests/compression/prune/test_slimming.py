"""Scales that shrink to zero, and stay there."""

import pytest
import torch
from support.common import tiny_model, tiny_recipe
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from labkit import models
from labkit.compression.agreement import largest_difference
from labkit.compression.prune import remove_lossless, shrink
from labkit.distributed.parallel.batch_norm import synchronize_batch_norm
from labkit.training import SGD, Step, Training, train


def still(penalty: float, model: nn.Module) -> Training:
    """One step in which only the penalty moves anything: nothing has a gradient."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        parameter.register_hook(torch.zeros_like)
    batches = [(torch.rand(4, 1, 12, 12), torch.arange(4))]
    return train(model, batches, optimizer, between=(shrink(penalty),))


def test_every_scale_moves_by_the_same_and_stops_at_zero() -> None:
    model = tiny_model()
    scales = [m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for scale in scales:
            scale[0], scale[1] = 0.5, -0.01
    others = {n: p.clone() for n, p in model.named_parameters() if "norm" not in n or "bias" in n}
    list(still(0.3, model))
    for scale in scales:
        assert scale[:2].tolist() == pytest.approx([0.47, 0.0])
    for name, before in others.items():
        assert torch.equal(dict(model.named_parameters())[name], before)


def test_scales_at_zero_are_found_as_dead() -> None:
    model = models.convnet(width=4)
    with torch.no_grad():
        model.blocks[0].norm1.weight[:2] = 0.01
    list(still(0.3, model))
    found = remove_lossless(model, torch.zeros(1, 1, 12, 12))
    assert found.removed == 2
    assert largest_difference(model, found.model, torch.rand(8, 1, 12, 12)) < 1e-5


def test_a_training_with_it_frees_channels_that_one_without_keeps() -> None:
    recipe = tiny_recipe(epochs=3, optimizer=SGD(lr=0.1))
    removed = []
    for between in ((), (shrink(1.0),)):
        training = recipe.but(between=between).training()
        list(training)
        removed.append(remove_lossless(training.model, torch.zeros(1, 1, 12, 12)).removed)
    assert removed[0] == 0 < removed[1]


@pytest.mark.parametrize("penalty", [-0.1, float("nan"), float("inf")])
def test_refuses_a_bad_penalty(penalty: float) -> None:
    with pytest.raises(ValueError, match="penalty must be a number from 0 up"):
        shrink(penalty)


def test_refuses_a_model_without_scales() -> None:
    batches = [(torch.randn(2, 64), torch.arange(2))]
    model = models.mlp()
    training = train(model, batches, SGD(lr=0.1).build(model), between=(shrink(0.1),))
    with pytest.raises(ValueError, match="needs a model with batch norms that have scales"):
        next(iter(training))


def test_knows_the_lab_s_own_batch_norm() -> None:
    training = still(1e9, synchronize_batch_norm(tiny_model()))
    steps = shrink(1e9)(training, iter([Step(0, 0, 1.0, 1.0, (0.0, 0.0, 0.0, 0.0))]))
    assert len(list(steps)) == 1  # all of it by hand: a forward pass needs other ranks
    scales = [m.weight for m in training.model.modules() if isinstance(m, _BatchNorm)]
    assert len(scales) > 3 and not any(scale.any() for scale in scales)
