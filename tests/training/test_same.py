"""A checkpoint is checked whole before anything is changed: what does not fit is named."""

import copy
import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from labkit import checkpoint
from labkit.training import Training, average_weights, train
from labkit.training.stream import EpochStream

BATCHES = [(torch.randn(4, 3), torch.zeros(4, dtype=torch.long))] * 4


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def two_groups(model: nn.Module, **settings: Any) -> torch.optim.Optimizer:
    parts = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.01}]
    return torch.optim.SGD(parts, lr=0.1, **settings)


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def backwards(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(reversed(list(model.parameters())), lr=0.1, momentum=0.9)


def of(kind: Any, **settings: Any) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: kind(model.parameters(), lr=0.1, **settings)


Build = Callable[[nn.Module], torch.optim.Optimizer]
OTHERS: list[tuple[str, Build, Build, str]] = [
    ("fewer groups", two_groups, momentum, r"group 0's|parameter 2 of group 0 is missing there"),
    ("more groups", momentum, two_groups, "what is set of group 1 is missing there and dampening"),
    ("SGD to AdamW", of(torch.optim.SGD), of(torch.optim.AdamW), "its kind is SGD there and AdamW"),
    ("momentum to AdamW", momentum, of(torch.optim.AdamW), "its kind is SGD there and AdamW here"),
    ("Adam to AdamW", of(torch.optim.Adam), of(torch.optim.AdamW), "its kind is Adam there"),
    ("to RMSprop", of(torch.optim.AdamW), of(torch.optim.RMSprop), "its kind is AdamW there"),
    ("other order", momentum, backwards, r"parameter 0 of group 0 is \(4, 3\) there and \(2,\)"),
]


def training(model: nn.Module, build: Build = momentum, **settings: Any) -> Training:
    return train(model, BATCHES, build(model), epochs=2, **settings)


def flat(value: Any) -> list[Any]:
    """All that a state holds, in order."""
    if isinstance(value, dict):
        return [part for key in value for part in (key, *flat(value[key]))]
    if isinstance(value, list | tuple):
        return [each for part in value for each in flat(part)]
    return [value.tolist() if isinstance(value, Tensor) else value]


def is_unchanged_by(run: Training, path: Path, message: str) -> None:
    before, answering = copy.deepcopy(run.state_dict()), run.answering
    with pytest.raises(ValueError, match=message):
        checkpoint.load(path, run)
    assert flat(run.state_dict()) == flat(before) and run.answering is answering
    list(run)  # and it goes on
    assert run.index == run.total


@pytest.mark.parametrize(("_", "there", "here", "message"), OTHERS, ids=[o[0] for o in OTHERS])
def test_another_optimizer_is_refused_and_nothing_changes(
    _: str, there: Build, here: Build, message: str, tmp_path: Path
) -> None:
    saved = training(net(), there)
    next(iter(saved))
    checkpoint.save(tmp_path / "run", saved)
    run = training(net(1), here)
    list(itertools.islice(run, 2))
    is_unchanged_by(run, tmp_path / "run", "another optimizer: " + message)


def paths(state: Any, depth: int = 2) -> list[tuple[Any, ...]]:
    if not isinstance(state, dict) or not depth:
        return []
    return [
        p for key in state for p in [(key,), *((key, *q) for q in paths(state[key], depth - 1))]
    ]


WHOLE = training(net(), between=(average_weights(0.9),))
next(iter(WHOLE))
GONE = [p for p in paths(WHOLE.state_dict()) if p[0] not in ("model", "optimizer_form")]


@pytest.mark.parametrize("gone", GONE, ids=str)
def test_a_state_that_lacks_something_changes_nothing(
    gone: tuple[str, ...], tmp_path: Path
) -> None:
    state = copy.deepcopy(WHOLE.state_dict())
    holder = state
    for key in gone[:-1]:
        holder = holder[key]
    del holder[gone[-1]]
    checkpoint.write_state(tmp_path / "run", state)
    run = training(net(1), between=(average_weights(0.9),))
    message = rf"it lacks {gone[0]}" if len(gone) == 1 else "does not fit this training|another"
    is_unchanged_by(run, tmp_path / "run", message)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("rng", "torch"), torch.zeros(3)),
        (("stream", "loader"), {"batches.sampler": torch.zeros(3)}),
        (("between",), [{"average": {"nothing": torch.zeros(3)}}]),
    ],
    ids=str,
)
def test_a_state_that_cannot_be_put_back_changes_nothing(
    where: tuple[str, ...], value: Any, tmp_path: Path
) -> None:
    state = copy.deepcopy(WHOLE.state_dict())
    holder = state
    for key in where[:-1]:
        holder = holder[key]
    holder[where[-1]] = value
    checkpoint.write_state(tmp_path / "run", state)
    run = training(net(1), between=(average_weights(0.9),))
    is_unchanged_by(run, tmp_path / "run", "does not fit this training")


def test_a_race_is_no_training(tmp_path: Path) -> None:
    checkpoint.write_state(tmp_path / "race", {"arms": {}, "number": 3})
    is_unchanged_by(training(net(1)), tmp_path / "race", "not a whole checkpoint of a training")


# -- models that are wrapped ---------------------------------------------------------------------


class Parallel(nn.Module):
    """As data parallel wraps a model."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


def compiled(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.compile(model, backend="eager")


def inside(model: nn.Sequential) -> nn.Module:
    return nn.Sequential(compiled(model[0]), model[1], model[2])


def checkpointed(model: nn.Sequential) -> nn.Module:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    return nn.Sequential(checkpoint_wrapper(model[0]), model[1], model[2])


WRAPS: dict[str, Callable[[nn.Sequential], nn.Module]] = {
    "plain": lambda model: model,
    "compiled": compiled,
    "parallel": Parallel,
    "parallel and compiled": lambda model: Parallel(compiled(model)),
    "compiled and parallel": lambda model: compiled(Parallel(model)),
    "compiled inside": inside,
    "checkpointed": checkpointed,
}


@pytest.mark.parametrize("here", WRAPS)
@pytest.mark.parametrize("there", WRAPS)
def test_wrappers_names_are_understood(there: str, here: str, tmp_path: Path) -> None:
    first, second = net(), net(1)
    saved = training(WRAPS[there](first))
    saved.index = 3
    checkpoint.save(tmp_path / "run", saved)
    run = training(WRAPS[here](second))
    checkpoint.load(tmp_path / "run", run)
    assert run.index == 3
    for mine, theirs in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_another_model_is_told_by_its_own_names(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "run", training(compiled(net())))
    other = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    is_unchanged_by(training(other), tmp_path / "run", r"0.weight is \(4, 3\) there and \(5, 3\)")
    with pytest.raises(ValueError, match=r"0.weight is \(4, 3\) there and \(4, 3\) float64 here"):
        checkpoint.load(tmp_path / "run", training(net().double()))


# -- devices -------------------------------------------------------------------------------------


def test_what_belongs_on_the_cpu_stays_there(tmp_path: Path, monkeypatch: Any) -> None:
    """ "meta" stands for an accelerator: nothing of the CPU's may be moved to it."""
    saved = training(net(), of(torch.optim.AdamW), between=(average_weights(0.9),))
    next(iter(saved))
    checkpoint.save(tmp_path / "run", saved)
    state = checkpoint.read_state(tmp_path / "run")
    tensors = [value for value in flat_tensors(state)]
    assert len(tensors) > 10 and {t.device.type for t in tensors} == {"cpu"}
    run = training(net(1), of(torch.optim.AdamW), between=(average_weights(0.9),))
    moved: list[Any] = []
    monkeypatch.setattr("labkit.training.run.to_device", lambda v, d: moved.append(v) or v)
    run.load_state_dict(state)
    assert len(moved) == 1 and moved[0] is state["between"][0]
    assert isinstance(run.stream, EpochStream)


def flat_tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return (
        [t for part in parts for t in flat_tensors(part)]
        if isinstance(value, dict | list | tuple)
        else []
    )


@pytest.mark.parametrize("value", [torch.ones, object(), {"a": [nn.Identity()]}])
def test_what_could_not_be_read_again_is_not_written(value: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\.x.* is a \w+, which no checkpoint can hold"):
        checkpoint.write_state(tmp_path / "run", {"x": value})
    assert not list(tmp_path.iterdir())
