"""What the benchmarks of pruning and quantization begin with: the same nets, fairly compared."""

from __future__ import annotations

import os
from collections import Counter

import pytest
import torch
from torch import nn

from benchmarks import trained
from labkit import models
from labkit.facts import threads

TINY = trained.Scale(
    (2,), seeds=2, train=780, test=50, epochs=1, more=1, rounds=2, turns=2, batch=4
)


@pytest.fixture(autouse=True)
def one_thread():
    with threads(1):
        yield


def more(net, width, seed):
    return trained.train_more(TINY, net, width, seed, epochs=3, rate=0.05)


def test_a_net_is_trained_once_and_more_training_leaves_it_alone():
    net = trained.convnet(TINY, 2, 0)
    assert trained.convnet(TINY, 2, 0) is net
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    longer, other = more(net, 2, 0), trained.convnet(TINY, 2, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not torch.equal(longer.head.weight, net.head.weight)
    assert not torch.equal(other.head.weight, net.head.weight)
    assert not (net.training or longer.training)


def test_the_whole_net_and_the_changed_one_see_the_same_batches(monkeypatch):
    """Else "lost to the whole net" would compare two shuffles."""
    seen = []
    monkeypatch.setattr(trained, "run_through", lambda recipe: seen.append(recipe))
    for width, seed in ((2, 5), (4, 5), (2, 6)):
        more(models.convnet(width), 2, seed)
    assert [recipe.seed for recipe in seen] == [105, 105, 106]
    first, same, other = (next(iter(recipe.batches()))[1] for recipe in seen)
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert (seen[1].epochs, seen[1].optimizer.lr, seen[0].task.label_smoothing) == (3, 0.05, 0.1)


def test_accuracy_is_of_all_test_images_in_per_cent():
    class Says(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.eye(10)[torch.full((len(x),), 3)]

    assert trained.accuracy(TINY, Says()) == 10.0  # of ten classes in equal parts


def test_each_turn_is_a_process_of_its_own_and_one_figure(tmp_path):
    class Process(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with file.open("a") as lines:
                lines.write(f"{os.getpid()} {torch.get_num_threads()}\n")
            return x

    file = tmp_path / "turns"
    found = trained.timed_in_turns({"a": Process()}, torch.ones(1), rounds=4, turns=3)
    calls = Counter(file.read_text().splitlines())
    assert len(found["a"]) == 3 and all(seconds > 0 for seconds in found["a"])
    assert len(calls) == 3 and all(line.endswith(" 1") for line in calls)
    assert min(calls.values()) >= 4


def test_the_folded_net_answers_as_the_net_does():
    net = trained.convnet(TINY, 2, 0)
    folded, images = trained.folded(net), trained.example(TINY)
    assert images.shape == (TINY.batch, 1, 28, 28)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(images), net(images))


def test_what_is_lost_is_counted_by_pairs_and_less_than_nothing_is_a_gain():
    loss, gain = trained.lost([90.0, 95.0], [89.0, 94.0]), trained.lost([90.0], [91.5])
    assert (loss.value, loss.low, loss.high, loss.n) == (1, 1, 1, 2)
    assert gain.value == -1.5
