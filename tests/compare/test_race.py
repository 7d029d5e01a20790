"""A race is fair, repeats to the bit, can be broken off, saved and continued."""

from functools import partial
from pathlib import Path

import pytest
import torch
from support.common import tiny_data
from support.racing import Dropping, Losses, recipe
from torch import nn

from labkit import models
from labkit.compare import Race
from labkit.facts import threads
from labkit.training import Recipe


def losses(race: Race, arm: str) -> list[list[float]]:
    return [record.losses for record in race.records[arm]]


def test_arms_start_from_the_same_weights_and_see_the_same_batches() -> None:
    race = Race({"a": recipe(), "b": recipe(precision="bf16"), "c": recipe()}, seeds=2)
    starts: list[dict[str, torch.Tensor]] = []
    original = Race._next_seed

    def watched(self: Race) -> None:
        original(self)
        for training in self.trainings.values():
            starts.append({k: v.clone() for k, v in training.model.state_dict().items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Race, "_next_seed", watched)
        list(race)
    assert len(starts) == 6
    for seed in (0, 1):
        first, *others = starts[3 * seed : 3 * seed + 3]
        for other in others:
            assert all(torch.equal(first[k], other[k]) for k in first)
    assert not torch.equal(starts[0]["net.head.weight"], starts[3]["net.head.weight"])

    seen = [training.model.seen for training in race.trainings.values()]
    assert len(seen[0]) == 10
    for others in zip(*seen, strict=True):
        assert all(torch.equal(others[0], other) for other in others)


def test_the_same_arm_twice_runs_the_same_to_the_bit_and_as_it_would_alone() -> None:
    race = Race({"a": recipe(), "b": recipe()}, seeds=2)
    list(race)
    assert losses(race, "a") == losses(race, "b")
    with threads(1):  # as the race does: the number of threads changes the order of sums
        alone = [[step.loss for step in recipe(seed=seed).training()] for seed in (0, 1)]
    assert losses(race, "a") == alone


def test_steps_take_turns_and_the_order_changes() -> None:
    order: list[str] = []

    def named(name: str) -> nn.Module:
        model = models.convnet(width=8)
        model.register_forward_pre_hook(
            lambda module, _: order.append(name) if module.training else None
        )
        return model

    race = Race({n: recipe(model=partial(named, n)) for n in "abc"}, seeds=1)
    for _ in range(4):
        race.advance()
    assert "".join(order) == "abc" + "bca" + "cab" + "cba"


def test_an_arm_with_fewer_steps_keeps_pace_and_rests() -> None:
    race = Race({"small": recipe(), "large": recipe(batch_size=16)}, seeds=1, evaluations=2)
    rounds = list(race)
    assert [len(r.steps) for r in rounds] == [2, 1] * 5
    assert [len(record.seconds) for record in (race.records[n][0] for n in race.arms)] == [10, 5]
    assert race.records["large"][0].rounds == [0, 2, 4, 6, 8]


def test_evaluation_is_not_training_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    def slow(self: Recipe, model: nn.Module) -> torch.Tensor:
        nonlocal now
        now += 1000.0
        return torch.tensor([0.0, 1.0])

    monkeypatch.setattr("labkit.training.loop.perf_counter", clock)
    monkeypatch.setattr(Recipe, "scores", slow)
    race = Race({"a": recipe()}, seeds=1, evaluations=5)
    list(race)
    step = race.records["a"][0].seconds[0]  # so many readings of the clock
    assert 0 < step < 10 and race.records["a"][0].seconds == [step] * 10
    # Memory is measured in the second step, which the clock leaves out: the third counts twice.
    seconds = [(2, step), (4, 4 * step), (6, 6 * step), (8, 8 * step), (10, 10 * step)]
    assert race.records["a"][0].evaluations == [(*each, 0.5) for each in seconds]


def test_progress_and_time_left() -> None:
    race = Race({"a": recipe()}, seeds=2)
    assert race.progress == 0
    assert race.seconds_left is None
    for done, _ in enumerate(race, start=1):
        assert race.progress == pytest.approx(done / 20)
        if done == 10:
            spent = race._wall
            assert race.seconds_left == pytest.approx(spent)
    assert race.finished
    assert race.seconds_left == 0
    with pytest.raises(ValueError, match="finished"):
        race.advance()


def test_breaking_off_and_going_on_changes_nothing() -> None:
    whole, broken = (Race({"a": recipe(), "b": recipe(precision="bf16")}, seeds=2) for _ in "12")
    list(whole)
    for _ in range(4):  # leave and come back, once in mid-seed, once between the seeds
        for count, _ in enumerate(broken):
            if count == 4:
                break
    list(broken)
    assert [losses(broken, n) for n in "ab"] == [losses(whole, n) for n in "ab"]


def test_an_interrupt_within_a_step_leaves_a_race_that_goes_on() -> None:
    armed = {"on": False}

    class Interrupted(Dropping):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if armed["on"] and self.training:
                armed["on"] = False
                raise KeyboardInterrupt
            return super().forward(x)

    race, whole = (Race({n: recipe(model=Interrupted) for n in "ab"}, seeds=1) for _ in "12")
    list(whole)
    for _ in range(3):
        race.advance()
    armed["on"] = True
    with pytest.raises(KeyboardInterrupt):
        race.advance()
    list(race)
    assert race.finished
    assert [len(losses(race, n)[0]) for n in "ab"] == [10, 10]


@pytest.mark.parametrize("stop_at", [1, 10, 13])
def test_saved_and_continued_elsewhere_to_the_bit(stop_at: int, tmp_path: Path) -> None:
    def make() -> Race:
        return Race({"a": recipe(), "b": recipe(precision="fp16")}, seeds=2)

    whole, first, second = make(), make(), make()
    list(whole)
    for _ in range(stop_at):
        first.advance()
    first.save(tmp_path / "race.ckpt")
    second.load(tmp_path / "race.ckpt")
    assert second.progress == first.progress
    list(second)
    for arm in "ab":
        assert losses(second, arm) == losses(whole, arm)
        accuracies = [[r.evaluations for r in x.records[arm]] for x in (second, whole)]
        steps_and_accuracy = [[[(e[0], e[2]) for e in r] for r in a] for a in accuracies]
        assert steps_and_accuracy[0] == steps_and_accuracy[1]


def test_refuses_the_file_of_another_race(tmp_path: Path) -> None:
    race = Race({"a": recipe()}, seeds=1)
    race.advance()
    race.save(tmp_path / "race.ckpt")
    with pytest.raises(ValueError, match="of another race: its arms are a"):
        Race({"b": recipe()}, seeds=1).load(tmp_path / "race.ckpt")
    with pytest.raises(ValueError, match="of another race: its arm 'a' has another batch_size"):
        Race({"a": recipe(batch_size=4)}, seeds=1).load(tmp_path / "race.ckpt")
    other = partial(models.convnet, 4)
    with pytest.raises(ValueError, match="of another race: its arm 'a' has another model"):
        Race({"a": recipe(model=other)}, seeds=1).load(tmp_path / "race.ckpt")
    with pytest.raises(ValueError, match="of another race: its arm 'a' has another data"):
        Race({"a": recipe(data=tiny_data(88))}, seeds=1).load(tmp_path / "race.ckpt")
    with pytest.raises(ValueError, match="of another race: its evaluations are 4"):
        Race({"a": recipe()}, seeds=1, evaluations=5).load(tmp_path / "race.ckpt")
    with pytest.raises(ValueError, match="of another race: its evaluations are 4"):
        Race({"a": recipe()}, seeds=1, evaluations=5).load(tmp_path / "race.ckpt")
    with pytest.raises(ValueError, match="of another race: its seeds are 1"):
        Race({"a": recipe()}, seeds=2).load(tmp_path / "race.ckpt")


def test_refuses_bad_arms() -> None:
    with pytest.raises(ValueError, match="arms must be different names, at least one"):
        Race({})
    with pytest.raises(TypeError, match=r"arms must be of type Mapping\[str, Recipe\], got"):
        Race({"a": 3})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="arm 'b' must be a Recipe, got int"):
        Race({"a": recipe(), "b": 3})  # type: ignore[dict-item]
    for argument in ("seeds", "evaluations", "thread_count"):
        with pytest.raises(ValueError, match=argument):
            Race({"a": recipe()}, **{argument: -1})
    with pytest.raises(ValueError, match="arms must be different names"):
        Race(dict.fromkeys(("a", 1), recipe()))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="arm 'a' has the seed 4294967295: 2 seeds from there"):
        Race({"a": recipe(seed=2**32 - 1)}, seeds=2)
    with pytest.raises(ValueError, match="target must lie between 0 and 1, got 90"):
        Race({"a": recipe()}, target=90)
    assert Race({"a": recipe(task=Losses())}, target=1.5).target == 1.5
    with pytest.raises(ValueError, match="target must lie between 0 and inf, got -1"):
        Race({"a": recipe(task=Losses())}, target=-1)


def test_an_arm_whose_loss_is_not_finite_is_named() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = models.convnet(width=8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x) * float("nan")

    race = Race({"fine": recipe(), "broken": recipe(model=Broken)})
    with pytest.raises(FloatingPointError, match="arm 'broken': loss is nan at step 0"):
        list(race)


def test_global_generators_and_threads_are_left_as_they_were() -> None:
    torch.manual_seed(5)
    before, count = torch.get_rng_state(), torch.get_num_threads()
    race = Race({"a": recipe()}, seeds=1)
    race.advance()
    assert race.estimate() > 0
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == count
