"""What a checkpoint of many ranks keeps of an optimizer, what it refuses, and whose folders go."""

from __future__ import annotations

import pytest
import torch
from support.parallel import check_equal, content
from torch import nn

from labkit.distributed.parallel.sharded_checkpoint import load, save


class Branches(nn.Module):
    """Two layers, of which the second one is used at times."""

    def __init__(self):
        super().__init__()
        self.a, self.spare = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x, both):
        return self.a(x) + (self.spare(x) if both else 0)


def branches(seed):
    torch.manual_seed(seed)
    model = Branches()
    return model, torch.optim.AdamW(model.parameters())


def step(model, optimizer, both):
    optimizer.zero_grad()
    model(torch.ones(4, 3), both).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("saved", "frozen", "loaded"),
    [
        ((), False, False),  # no step at all
        ((False,), False, False),  # a branch that was not used so far
        ((True, True), True, True),  # trained, then frozen
        ((True,), True, False),  # frozen here only
        ((False,), False, True),  # here only it is frozen
    ],
)
def test_states_come_back_for_what_had_one(tmp_path, saved, frozen, loaded, wrapped):
    (model, optimizer), (other, another) = branches(0), branches(1)
    for number, both in enumerate(saved):
        model.spare.requires_grad_(not (frozen and number))
        step(model, optimizer, both)
    other.spare.requires_grad_(not loaded)
    whole = torch.compile(model, backend="eager") if wrapped else model
    save(tmp_path / "run", whole, optimizer)
    load(tmp_path / "run", other, another)
    check_equal(content(other, another), content(model, optimizer))
    for one, its in ((model, optimizer), (other, another)):
        one.spare.requires_grad_(True)
        step(one, its, True)
    check_equal(content(other, another), content(model, optimizer))


def test_another_optimizer_is_refused_before_anything_is_changed(tmp_path):
    model, optimizer = branches(0)
    step(model, optimizer, True)
    save(tmp_path / "plain", model)
    save(tmp_path / "run", model, optimizer)
    groups = [{"params": model.a.parameters(), "lr": 1.0}, {"params": model.spare.parameters()}]
    save(tmp_path / "two", model, torch.optim.AdamW(groups))
    other, another = branches(1)
    before = content(other, another)
    for folder, kind, words in (
        ("plain", torch.optim.AdamW, r"another model: it has no optimizer\.param_groups\.a\.bias"),
        ("run", torch.optim.SGD, "has no optimizer.param_groups.a.bias"),
        ("run", lambda _: torch.optim.AdamW(other.a.parameters()), r"here has no .*spare\.bias"),
        ("run", lambda _: optimizer, "must hold parameters of the model only"),
        ("two", torch.optim.AdamW, "spare.weight in another parameter group"),
    ):
        with pytest.raises(ValueError, match=words):
            load(tmp_path / folder, other, kind(other.parameters()))
    check_equal(content(other, another), before)


def test_only_what_is_ours_is_removed(tmp_path):
    """A user's own folder, whatever its name, stays; so does what begins like ours."""
    names = (
        "data-raw",
        "data-set",
        "data-" + 31 * "a",
        "data-" + 33 * "a",
        ".checkpoint.json-notes",
    )
    for name in names:
        folder = tmp_path / name
        (folder / name).mkdir(parents=True)
        with pytest.raises(
            ValueError, match=f"folder must be new, or hold a checkpoint: .* {name}"
        ):
            save(folder, nn.Linear(1, 1))
        assert (folder / name).exists()
    save(tmp_path / "run", nn.Linear(1, 1))
    for name in names:
        (tmp_path / "run" / name).mkdir()
    save(tmp_path / "run", nn.Linear(1, 1))
    assert len(list((tmp_path / "run").iterdir())) == 2 + len(names)
    index = tmp_path / "run" / "checkpoint.json"
    index.write_text(index.read_text().replace('"data": "data-', '"data": "../data-'))
    for call in (save, load):
        with pytest.raises(ValueError, match="is of something else"):
            call(tmp_path / "run", nn.Linear(1, 1))
