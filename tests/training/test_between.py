"""Generators around the steps: what they do, that they stack, and that they resume to the bit."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from labkit import checkpoint, models
from labkit.training import Step, Training, average_weights, train, unfreeze


def batches(count: int = 6) -> list:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(8, 64, generator=generator), torch.randint(10, (8,), generator=generator))
        for _ in range(count)
    ]


def training(*between, model: nn.Module | None = None, epochs: int = 1) -> Training:
    if model is None:
        torch.manual_seed(0)
        model = nn.Sequential(models.mlp(), nn.BatchNorm1d(10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return train(model, batches(), optimizer, between=between, epochs=epochs)


@dataclass(frozen=True)
class count:
    """Counts steps in the training's memory, and writes down who came by."""

    name: str
    seen: list

    def __call__(self, training: Training, steps: Iterator[Step]) -> Iterator[Step]:
        for step in steps:
            memory = training.memory(self)
            memory["steps"] = memory.get("steps", 0) + 1
            self.seen.append((self.name, step.index))
            yield step


def test_the_first_is_innermost_and_each_sees_every_step() -> None:
    seen: list = []
    steps = list(training(count("a", seen), count("b", seen)))
    assert [step.index for step in steps] == list(range(6))
    assert seen == [(name, index) for index in range(6) for name in "ab"]


def test_averages_follow_the_formula() -> None:
    run = training(average_weights(0.75))
    assert run.answering is run.model
    expected, weight = None, run.model[0][0].weight
    for _ in run:
        # torch's average begins with the first weights, as they are
        expected = (
            weight.detach().clone()
            if expected is None
            else 0.75 * expected + 0.25 * weight.detach()
        )
        torch.testing.assert_close(run.answering[0][0].weight, expected)
    assert run.answering is not run.model
    assert not torch.equal(run.answering[1].running_mean, run.model[1].running_mean)


def test_an_average_changes_nothing_of_the_training() -> None:
    plain, averaged = training(), training(average_weights())
    assert [step.loss for step in plain] == [step.loss for step in averaged]


@pytest.mark.parametrize("cut", [1, 4, 7])
def test_resumes_to_the_bit(tmp_path: Path, cut: int) -> None:
    def made() -> Training:
        thaw = unfreeze((("0.0", 0.5), ("1", 2.0)))
        return training(count("a", []), average_weights(0.9), thaw, epochs=2)

    whole = made()
    for step in whole:
        if step.index + 1 == cut:
            checkpoint.save(tmp_path / "half", whole)
            answering = {k: v.clone() for k, v in whole.answering.state_dict().items()}
    resumed = made()
    checkpoint.load(tmp_path / "half", resumed)
    # also what is evaluated is there before another step
    now = resumed.answering.state_dict()
    assert all(torch.equal(now[name], value) for name, value in answering.items())
    list(resumed)
    for ours, theirs in ((resumed.model, whole.model), (resumed.answering, whole.answering)):
        there = theirs.state_dict()
        assert all(torch.equal(v, there[name]) for name, v in ours.state_dict().items())
    assert resumed.memory(resumed.between[0]) == {"steps": 12}


def test_other_generators_are_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "one", training(average_weights()))
    for other in ((), (unfreeze(()),), (average_weights(), unfreeze(()))):
        run = training(*other)
        before = copy.deepcopy(run.model.state_dict())
        with pytest.raises(ValueError, match=r"\['average_weights'\], of this one"):
            checkpoint.load(tmp_path / "one", run)
        assert all(torch.equal(before[name], v) for name, v in run.model.state_dict().items())


def test_a_state_is_no_part_of_the_training_it_came_from() -> None:
    run = training(average_weights(0.9))
    list(run)
    average = copy.deepcopy(run.answering.state_dict())
    run.load_state_dict(run.state_dict())
    assert all(torch.equal(average[name], v) for name, v in run.answering.state_dict().items())


def test_frozen_parts_stay_and_thaw_in_their_time() -> None:
    torch.manual_seed(0)
    run = training(unfreeze((("0.0", 0.5), ("1", 2.0))))
    first, last = run.model[0][0].weight, run.model[1].weight
    before, moved = (first.detach().clone(), last.detach().clone()), []
    for step in run:
        moved.append(
            (step.index, bool((first != before[0]).any()), bool((last != before[1]).any()))
        )
    assert moved == [(index, index >= 3, False) for index in range(6)]
    assert all(p.requires_grad for p in run.model.parameters())  # given back as they were


def test_what_was_frozen_before_stays_frozen() -> None:
    model = nn.Sequential(models.mlp(), nn.BatchNorm1d(10))
    model[0][0].requires_grad_(False)
    for _ in training(unfreeze((("0", 0.5),)), model=model):
        assert not model[0][0].weight.requires_grad


def test_freezes_a_torchvision_model_by_its_names() -> None:
    model = torchvision.models.resnet18(num_classes=4)
    data = [(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))] * 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    names = ("conv1", "bn1", "layer1", "layer2", "layer3")
    thaw = unfreeze(tuple((name, 2.0) for name in names))
    for _ in train(model, data, optimizer, between=(thaw,)):
        trained = {name for name, p in model.named_parameters() if p.grad is not None}
        assert {name.split(".")[0] for name in trained} == {"layer4", "fc"}


@pytest.mark.parametrize(
    ("between", "message"),
    [
        (unfreeze((("nowhere", 0.5),)), "names 'nowhere', but the model's parts are: 0, 0.0"),
        (unfreeze((("0", 0.5), ("1", 0.5))), "nothing is left to train"),
    ],
)
def test_bad_names_and_frozen_models_are_refused(between: unfreeze, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(training(between))
    with pytest.raises(ValueError, match="decay must lie in"):
        average_weights(1.0)
    with pytest.raises(ValueError, match="no `between` of this training"):
        training().memory(between)


def test_its_time_is_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    def slow(_training: Training, steps: Iterator[Step]) -> Iterator[Step]:
        nonlocal now
        for step in steps:
            now += 100.0
            yield step

    monkeypatch.setattr("labkit.training.loop.perf_counter", clock)
    for step in training(slow):
        now += 10_000.0
        assert step.phases[:4] == (1.0, 1.0, 1.0, 1.0)
        assert 100 <= step.phases.between < 110
        assert step.seconds == sum(step.phases)
