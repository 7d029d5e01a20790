"""Schedules, optimizers, precision policies and recipes: values with laws."""

import math
from functools import partial

import numpy
import pytest
import torch
from support.common import tiny_data

from labkit import models
from labkit.training import (
    SGD,
    AdamW,
    Precision,
    Recipe,
    classify,
    cosine,
    evaluate,
    fast_precision,
    one_cycle,
    precision,
    unfreeze,
)
from labkit.training.schedules import lr_factor


def torch_rates(scheduler_class, steps: int, **arguments) -> list[float]:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = scheduler_class(optimizer, **arguments)
    rates = []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
    return rates


def our_rates(schedule, steps: int) -> list[float]:
    return [lr_factor(schedule, index, steps) for index in range(steps)]


def test_one_cycle_is_that_of_torch() -> None:
    # torch puts the peak at pct_start * total - 1: 31 steps and 11/31 put it at step 10 of 30.
    rates = torch_rates(
        torch.optim.lr_scheduler.OneCycleLR, 31, max_lr=1.0, total_steps=31, pct_start=11 / 31
    )
    assert our_rates(one_cycle(peak=10 / 30), 31) == pytest.approx(rates, abs=1e-12)


def test_cosine_with_floor_is_that_of_torch() -> None:
    rates = torch_rates(torch.optim.lr_scheduler.CosineAnnealingLR, 21, T_max=20, eta_min=0.1)
    assert our_rates(cosine(floor=0.1), 21) == pytest.approx(rates, abs=1e-12)


def test_warmup_rises_in_a_straight_line_to_the_full_rate() -> None:
    rates = our_rates(cosine(warmup=0.25), 41)
    assert rates[:11] == pytest.approx([k / 10 for k in range(11)])
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)
    assert max(rates) == rates[10] == pytest.approx(1.0)


def test_no_schedule_and_a_single_step() -> None:
    assert our_rates(None, 3) == [1.0, 1.0, 1.0]
    assert our_rates(cosine(), 1) == [1.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: classify(label_smoothing=1.0), "label_smoothing"),
        (lambda: cosine(warmup=1.0), "warmup"),
        (lambda: cosine(warmup=-0.1), "warmup"),
        (lambda: cosine(floor=2), "floor"),
        (lambda: one_cycle(peak=1), "peak"),
        (lambda: one_cycle(end=-1), "end"),
        (lambda: SGD(lr=0), "lr must be a positive number, got 0"),
        (lambda: AdamW(lr=-1), "lr"),
        (lambda: SGD(lr=float("nan")), "lr"),
        (lambda: SGD(lr=0.1, momentum=2), "momentum must lie in 0 … 1"),
        (lambda: SGD(lr=0.1, momentum=math.nan), "momentum"),
        (lambda: SGD(lr=0.1, momentum=-1), "momentum"),
        (lambda: SGD(lr=0.1, weight_decay=-1), "weight_decay must be a number from 0 up, got -1"),
        (lambda: AdamW(lr=0.1, betas=(math.nan, 0.9)), r"betas\[0\] must lie in 0 … 1"),
        (lambda: AdamW(lr=0.1, betas=(0.9, 1.0)), r"betas\[1\]"),
        (lambda: AdamW(lr=0.1, weight_decay=math.inf), "weight_decay"),
        (lambda: Precision("int8", torch.int8), "dtype must be a floating-point format"),
        (lambda: unfreeze((("0", math.nan),)), "at must hold numbers from 0 up, got nan for '0'"),
        (lambda: unfreeze((("0", -0.5),)), "at must hold"),
    ],
)
def test_refuses_values_out_of_range(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_optimizers_are_torch_s_own() -> None:
    model = models.mlp()
    parameters = list(model.parameters())
    sgd = SGD(lr=0.2).build(model)
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.param_groups[0] | {"params": None} == torch.optim.SGD(
        parameters, lr=0.2, momentum=0.9, weight_decay=5e-4, nesterov=True
    ).param_groups[0] | {"params": None}
    adam = AdamW(lr=1e-3).build(model)
    assert isinstance(adam, torch.optim.AdamW)
    assert adam.param_groups[0]["weight_decay"] == 0.01
    numbers = numpy.float32(0.25), numpy.float64(0.5)
    of_numpy = SGD(lr=numbers[0], momentum=numbers[1]).build(model).param_groups[0]
    assert {type(of_numpy[name]) for name in ("lr", "momentum", "weight_decay")} == {float}


def test_a_recipe_differs_in_what_it_says() -> None:
    base = Recipe(models.convnet, tiny_data(40, size=28), batch_size=8)
    other = base.but(precision="bf16")
    assert base.differences(other) == ("precision",)
    assert base.differences(base.but(model=partial(models.convnet, width=8))) == ("model",)
    assert base.precision == "fp32"
    assert (base.but(epochs=2).but(steps=5).epochs, base.but(steps=5).but(epochs=2).steps) == (
        None,
        None,
    )


def test_a_recipe_repeats_to_the_bit_and_its_seed_matters() -> None:
    base = Recipe(models.convnet, tiny_data(40, size=28), batch_size=8, task=classify(0.1))
    first, again = ([s.loss for s in base.training()] for _ in range(2))
    other = [s.loss for s in base.but(seed=1).training()]
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"epochs": -1}, ValueError, "epochs must be a whole number of at least 1, got -1"),
        ({"epochs": 1, "steps": 1}, ValueError, "epochs or steps"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"batch_size": 41}, ValueError, "larger than the training set"),
        ({"precision": "int3"}, ValueError, "precision must be one of"),
        ({"memory_format": "NHCW"}, ValueError, "memory_format must be one of contiguous"),
        ({"task": "classify"}, TypeError, "task must be of type Task"),
        ({"between": [unfreeze(())]}, TypeError, r"between must be of type tuple\[Between"),
        ({"model": models.mlp()}, TypeError, "model must be a function"),
        ({"colour": "red"}, TypeError, "colour"),
        ({"seed": -1}, ValueError, "seed must be a whole number from 0 to 4294967295, got -1"),
        ({"seed": 2**32}, ValueError, "seed must be"),
    ],
)
def test_a_recipe_refuses(changes: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Recipe(models.convnet, tiny_data(40, size=28), batch_size=8).but(**changes)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": lambda: 3}, TypeError, r"model\(\) must make a module, made int"),
        ({"model": models.ConvNet}, ValueError, r"model\(\) failed: TypeError: .*3 required"),
        ({"optimizer": SGD}, ValueError, r"optimizer.build\(model\) failed: TypeError: .*missing"),
        ({"device": "tpu"}, ValueError, "device must be one of this machine, got 'tpu'"),
        ({"schedule": cosine}, ValueError, "schedule must give a number from 0 up, gave cosine"),
    ],
)
def test_a_recipe_whose_parts_fail_says_which(
    changes: dict, error: type[Exception], message: str
) -> None:
    recipe = Recipe(models.convnet, tiny_data(40, size=28), batch_size=8).but(**changes)
    with pytest.raises(error, match=message):
        list(recipe.training())


def test_numbers_of_numpy_make_the_same_recipe() -> None:
    base = Recipe(models.convnet, tiny_data(40, size=28), batch_size=8, steps=3)
    assert base.differences(base.but(batch_size=numpy.int64(8), steps=numpy.int32(3))) == ()
    assert base.differences(base.but(clip=numpy.float64(1))) == ("clip",)


def test_accuracy_counts_right_answers_and_restores_the_mode() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(3)).train()
    logits = torch.tensor([[9.0, 0, 0], [0, 9, 0], [0, 0, 9], [9, 0, 0]])
    labels = torch.tensor([0, 1, 2, 1])
    running = model[1].running_mean.clone()
    assert evaluate(model, [(logits[:3], labels[:3]), (logits[3:], labels[3:])]) == 0.75
    assert model.training
    assert torch.equal(model[1].running_mean, running)
    with pytest.raises(ValueError, match="batches is empty"):
        evaluate(model, [])


def test_the_fast_precision_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for instructions, expected in (("AVX512, AMX bf16", "bf16"), ("AVX512 bf16", "fp32")):
        monkeypatch.setattr(precision, "instruction_set", lambda text=instructions: text)
        assert fast_precision() == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for known in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda known=known: known)
        assert fast_precision() == ("bf16" if known else "fp32")
