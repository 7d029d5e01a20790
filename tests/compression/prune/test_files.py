"""Pruned models in files: what is loaded is what was saved."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import pruning as support
from torch import nn

from labkit import models
from labkit.compression import prune
from labkit.training import checkpoint

NORMS = (nn.InstanceNorm2d(8), nn.GroupNorm(4, 8), nn.GroupNorm(4, 8, affine=False), nn.PReLU(8))


def with_norm(norm: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ConvTranspose2d(8, 4, 3))


def tied() -> nn.Module:
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)), nn.Linear(8, 3))
    model[2].weight = model[1].weight
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **support.SMALL,
    **{str(norm): (with_norm(norm), (3, 8, 8)) for norm in NORMS},
    "tied": (tied, (8,)),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_is_loaded_is_what_was_pruned_twice_and_saved(name: str, tmp_path: Path) -> None:
    build, shape = MODELS[name]
    inputs, fresh = torch.rand(2, *shape), build()
    smaller = prune.channels(prune.channels(support.lively(build()), inputs, 0.3), inputs, 0.3)
    prune.save(smaller, tmp_path / "model.pt")
    before = support.snapshot(fresh)
    loaded = prune.load(tmp_path / "model.pt", fresh)
    assert support.unchanged(fresh, before)
    assert repr(loaded) == repr(smaller) and support.unchanged(loaded, smaller.state_dict())
    assert torch.equal(loaded.eval()(inputs), smaller.eval()(inputs))
    assert all(p.requires_grad for p in loaded.parameters())
    assert len(list(loaded.parameters())) == len(list(smaller.parameters()))  # tied stay tied


def test_a_bias_that_lossless_pruning_added_comes_along(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3, bias=False)).eval()
    with torch.no_grad():
        model[0].weight[:3], model[0].bias[:3] = 0, 1
    smaller = prune.remove_lossless(model, torch.zeros(1, 4)).model
    assert smaller[2].bias is not None
    prune.save(smaller, tmp_path / "model.pt")
    inputs = torch.randn(5, 4)
    assert torch.equal(prune.load(tmp_path / "model.pt", model)(inputs), smaller(inputs))


def test_refuses_other_files_and_other_models_and_leaves_the_model_alone(tmp_path: Path) -> None:
    model, inputs = support.make("convnet")
    path = tmp_path / "model.pt"
    prune.save(prune.channels(model, inputs, 0.5), path)
    for other in (models.convnet(width=1), models.mlp(), nn.Conv2d(1, 1, 1)):
        before = support.snapshot(other)
        with pytest.raises(
            ValueError, match="holds a pruned model of another class or width: .* here"
        ):
            prune.load(path, other)
        assert support.unchanged(other, before)
    checkpoint.write_state(tmp_path / "other.pt", {"kind": "else"})
    with pytest.raises(ValueError, match="was not written by prune.save"):
        prune.load(tmp_path / "other.pt", model)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="damaged"):
        prune.load(path, model)
    with pytest.raises(FileNotFoundError):
        prune.load(tmp_path / "none.pt", model)
