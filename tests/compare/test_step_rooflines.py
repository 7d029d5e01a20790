"""A recipe's step under the roof: its work is counted exactly, its models leave no trace."""

import pytest
import torch
from support.common import tiny_recipe

from labkit.compare import step_standings
from labkit.measure import Ceiling, Estimate, step_flops
from labkit.training import Recipe


def roof(**peaks: float) -> Ceiling:
    rates = {name: Estimate(peak, peak, peak, 9) for name, peak in peaks.items()}
    return Ceiling(rates, rates, Estimate(10.0, 10.0, 10.0, 9), threads=1, device="cpu")


def test_work_is_that_of_one_whole_step() -> None:
    recipe = tiny_recipe()
    (images, labels) = next(iter(recipe.batches()))
    (found,) = step_standings({"a": recipe}, roof(fp32=100.0)).values()
    assert found.flops == step_flops(recipe.model(), images, labels)
    assert found.seconds > 0
    weights = sum(p.numel() * 4 for p in recipe.model().parameters())
    assert found.bytes > 3 * weights  # the optimizer alone reads and writes them, and the gradients


def test_each_recipe_stands_under_the_roof_of_its_own_format() -> None:
    base = tiny_recipe()
    recipes = {name: base.but(precision=name) for name in ("fp32", "bf16")}
    found = step_standings(recipes, roof(fp32=100.0, bf16=400.0))
    assert found["fp32"].ridge == pytest.approx(10.0)
    assert found["bf16"].ridge == pytest.approx(40.0)
    assert found["fp32"].flops == found["bf16"].flops
    with pytest.raises(ValueError, match="fp16"):
        step_standings({"fp16": base.but(precision="fp16")}, roof(fp32=100.0))


def test_steps_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def named(name: str) -> Recipe:
        def make() -> torch.nn.Module:
            model = tiny_recipe().model()
            model.register_forward_pre_hook(lambda *_: order.append(name))
            return model

        return tiny_recipe(model=make)

    step_standings({"a": named("a"), "b": named("b")}, roof(fp32=100.0))
    turns = ["".join(sorted(order[i : i + 2])) for i in range(0, 36, 2)]
    assert turns == ["ab"] * 18


def test_global_generators_are_left_alone() -> None:
    before = torch.get_rng_state()
    step_standings({"a": tiny_recipe()}, roof(fp32=100.0))
    assert torch.equal(torch.get_rng_state(), before)
