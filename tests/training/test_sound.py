"""Steps that would ruin the weights are refused, and what does not fit is said in our words."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labkit import models
from labkit.training import (
    Precision,
    checkpoint,
    classify,
    evaluate,
    next_token,
    scores,
    supervised,
    train,
)

X, Y = torch.randn(8, 16, generator=torch.Generator().manual_seed(0)), torch.arange(8)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return models.mlp(16, 8, 10)


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


# -- gradients that are not finite ---------------------------------------------------------------


def root(outputs: Tensor, flags: Tensor) -> Tensor:
    """A root of 0, where the flag is 0, has an infinite slope: times 0, that is not a number."""
    return (outputs.sum(1) * flags).abs().sqrt().mean()


def norm(outputs: Tensor, flags: Tensor) -> Tensor:
    return ((outputs * flags[:, None]) ** 2).sum().sqrt()


def branch(outputs: Tensor, flags: Tensor) -> Tensor:
    """The branch that is not taken has the gradient 0 times infinity."""
    return (outputs.sum(1) * flags).abs().log().clamp(min=-1).mean()


SETTINGS = ({}, {"clip": 1.0}, {"precision": "bf16"}, {"accumulate": 2})


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("function", [root, norm, branch])
@pytest.mark.parametrize("where", [0, 5])  # also in the last step
def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(
    where: int, function: Callable[..., Tensor], settings: dict[str, Any]
) -> None:
    model = nn.Linear(16, 4)
    batches = [(X, torch.ones(8) * (number != where)) for number in range(6)]
    run = train(model, batches, sgd(model), task=supervised(function), **settings)
    expected = where // settings.get("accumulate", 1)
    words = f"gradient of weight is nan at step {expected} .*{settings.get('precision', 'fp32')}"
    before = model.weight.detach().clone()
    with pytest.raises(FloatingPointError, match=words):
        for _ in run:
            before = model.weight.detach().clone()
    assert torch.equal(model.weight, before)
    assert run.index == expected


def test_a_scaled_loss_skips_such_steps_but_not_for_ever() -> None:
    model = nn.Linear(16, 4)
    scaled = Precision("scaled", torch.float32, scaled=True)
    batches = [(X, torch.zeros(8))] * 60
    before = model.weight.detach().clone()
    with pytest.raises(FloatingPointError, match=r"gradient, scaled by \S+ is nan at step 40"):
        list(train(model, batches, sgd(model), task=supervised(root), precision=scaled))
    assert torch.equal(model.weight, before)


def test_a_norm_that_overflows_is_refused_and_large_gradients_are_not() -> None:
    def steep(outputs: Tensor, _: Tensor) -> Tensor:
        return outputs.sum() * 1e25

    model = nn.Linear(16, 4)
    batches = [(X, Y)]
    with pytest.raises(FloatingPointError, match="norm of the gradient is inf at step 0"):
        list(train(model, batches, sgd(model), task=supervised(steep), clip=1.0))
    list(train(model, batches, sgd(model, 1e-26), task=supervised(steep)))
    assert model.weight.isfinite().all()


def test_gradients_of_every_kind_are_looked_at() -> None:
    class Mixed(nn.Module):
        def __init__(self, bad: str) -> None:
            super().__init__()
            self.rows = nn.Embedding(4, 2, sparse=True)
            self.twice = nn.Parameter(torch.ones(2, dtype=torch.float64))
            self.short = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
            self.spare = nn.Parameter(torch.ones(2))
            self.bad = bad

        def forward(self, x: Tensor) -> Tensor:
            parts = {"rows.weight": self.rows(x).sum(), "twice": self.twice.sum()}
            parts["short"] = self.short.sum()
            if self.bad:
                parts[self.bad] = (parts[self.bad] - parts[self.bad].detach()).abs().sqrt()
            return sum(part.float() for part in parts.values())[None]

    for bad in ("", "rows.weight", "twice", "short"):
        model = Mixed(bad)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        batch = [(torch.tensor([1, 1, 2]), torch.zeros(1))]
        run = train(model, batch, optimizer, task=supervised(lambda o, _: o.sum()))
        if not bad:
            assert len(list(run)) == 1
            continue
        with pytest.raises(FloatingPointError, match=f"gradient of {bad} is nan at step 0"):
            list(run)


# -- what does not fit ---------------------------------------------------------------------------


def tokens() -> nn.Module:
    return models.transformer(10, 8, 1, 2, 4)


def frozen() -> nn.Module:
    return net().requires_grad_(False)


TEXT = torch.zeros(2, 4, dtype=torch.long)
MISFITS: list[tuple[Any, Any, Any, str]] = [
    (net, None, (X, Y.float()), r"step 0 failed on \(float32 \(8, 16\), float32 \(8,\)\)"),
    (net, None, (X, Y - 5), r"\(float32 \(8, 16\), int64 \(8,\)\): IndexError: Target -5 is out"),
    (net, None, (X[:3], Y), r"step 0 failed on \(float32 \(3, 16\), int64 \(8,\)\)"),
    (net, None, (X.double(), Y), r"step 0 failed on \(float64 \(8, 16\), int64 \(8,\)\)"),
    (net, None, (X, Y[:, None]), r"step 0 failed on \(float32 \(8, 16\), int64 \(8, 1\)\)"),
    (net, None, (X[:, :3], Y), "step 0 failed on .*mat1 and mat2 shapes"),
    (net, None, ({"a": X}, Y), r"step 0 failed on \(\{'a': float32 \(8, 16\)\}, int64 \(8,\)\)"),
    (net, supervised(lambda o, y: 3.0), (X, Y), "loss must be a mean, one number .*, got float"),
    (net, supervised(lambda o, y: F.cross_entropy(o, y, reduction="none")), (X, Y), "got shape"),
    (net, supervised(nn.CrossEntropyLoss), (X, Y), "step 0 failed on .*RuntimeError: Boolean"),
    (net, supervised(lambda o, y: o.detach().sum()), (X, Y), "loss has no gradient"),
    (frozen, None, (X, Y), "loss has no gradient: is everything frozen"),
    (net, classify(class_weights=(1.0, 2.0)), (X, Y), "step 0 failed on"),
    (tokens, next_token(), (TEXT, TEXT[:, :2]), r"logits must be .*got \(2, 4, 10\) for \(2, 2\)"),
    (tokens, next_token(), (TEXT, TEXT + 99), "step 0 failed on .*IndexError"),
    (tokens, next_token(), (TEXT + 99, TEXT), "step 0 failed on .*IndexError: index out of range"),
]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(("make", "task", "batch", "message"), MISFITS)
def test_what_does_not_fit_is_told_with_shapes(
    make: Any, task: Any, batch: Any, message: str, accumulate: int
) -> None:
    model = make()
    run = train(model, [batch] * 2, sgd(model), task=task, accumulate=accumulate)
    with pytest.raises(ValueError, match=message):
        list(run)


def test_errors_of_ours_and_of_a_full_memory_come_as_they_are() -> None:
    with pytest.raises(ValueError, match="^tokens must be at most 4 long"):
        model = tokens()
        batch = torch.zeros(2, 5, dtype=torch.long)
        list(train(model, [(batch, batch)], sgd(model), task=next_token()))

    def full(*_: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError, match="^full$"):
        model = net()
        list(train(model, [(X, Y)], sgd(model), task=supervised(full)))


@pytest.mark.parametrize(
    ("model", "batch", "message"),
    [
        (net(), (X, Y.float() + 0.5), "for whole labels"),
        (net(), (X, Y[:, None]), "must answer with logits"),
        (nn.Linear(16, 1), (X, Y % 2), r"labels must lie in 0 … 0, .* 1 logits, found 0 … 1"),
        (net(), (X, Y - 5), r"labels must lie in 0 … 9, .*found -5 … 2"),
        (nn.Sequential(nn.Linear(16, 1), nn.Flatten(0)), (X, Y), "must answer with logits"),
        (net(), (X.double(), Y), r"score of batch 0 failed on \(float64 \(8, 16\), int64 \(8,\)\)"),
    ],
)
def test_answers_that_cannot_be_scored_are_refused(model: Any, batch: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(model, [batch])


def test_scores_are_finite() -> None:
    with pytest.raises(FloatingPointError, match="2 of 8 scores are not finite"):
        targets = torch.zeros(8, 10)
        targets[:2] = math.nan
        scores(net(), [(X, targets)], supervised(F.mse_loss))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": lambda p: -1.0}, "schedule must give a number from 0 up, gave -1.0"),
        ({"schedule": lambda p: math.nan}, "schedule must give"),
        ({"schedule": lambda p: "x"}, "schedule must give a number from 0 up, gave 'x'"),
    ],
)
def test_schedules_give_numbers(settings: dict[str, Any], message: str) -> None:
    model = net()
    with pytest.raises(ValueError, match=message):
        list(train(model, [(X, Y)], sgd(model), **settings))


def test_an_optimizer_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="optimizer has none of the model's parameters"):
        train(net(), [(X, Y)], sgd(net()))
    model = net()
    head = torch.optim.SGD(model[2].parameters(), lr=0.1)
    assert len(list(train(model, [(X, Y)], head))) == 1


def test_numbers_of_numpy_are_as_good(tmp_path: Path) -> None:
    model = net()
    run = train(
        model, [(X, Y)] * 2, sgd(model), schedule=lambda p: numpy.float64(1 - p / 2),
        steps=numpy.int64(4), accumulate=numpy.int32(1), clip=numpy.float32(1),
    )  # fmt: skip
    next(iter(run))
    checkpoint.save(tmp_path / "run", run)
    again = net()
    resumed = train(again, [(X, Y)] * 2, sgd(again), steps=4)
    checkpoint.load(tmp_path / "run", resumed)
    assert resumed.index == 1
