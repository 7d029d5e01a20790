"""Unstructured and 2:4 pruning: masks, schedules, bytes."""

import pytest
import torch
from support import pruning as support
from torch import nn
from torch.nn.utils import prune as torch_prune

from labkit import models
from labkit.compression import prune
from labkit.compression.prune import (
    apply_masks,
    compressed_bytes,
    magnitude_masks,
    masked,
    n_m_mask,
    n_m_masks,
    sparsity,
)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_the_smallest_go_and_exactly_so_many(share: float, together: bool) -> None:
    model, _ = support.make("convnet")
    before = support.snapshot(model)
    masks = magnitude_masks(model, share, together=together)
    pruned = masked(model, masks)
    assert support.unchanged(model, before)

    weights = dict(model.named_parameters())
    parts = [list(masks)] if together else [[name] for name in masks]
    for names in parts:
        size = torch.cat([weights[name].detach().abs().flatten() for name in names])
        mask = torch.cat([masks[name].flatten() for name in names])
        assert int((~mask).sum()) == round(share * mask.numel())
        if 0 < share < 1:
            assert size[mask].min() >= size[~mask].max()
    for name, value in pruned.named_parameters():
        expected = weights[name] * masks[name] if name in masks else weights[name]
        assert torch.equal(value, expected)
    assert sparsity(pruned) == pytest.approx(share, abs=0.005)


def test_layers_lose_the_same_share_only_when_ranked_alone() -> None:
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    with torch.no_grad():
        model[1].weight *= 0.001
    alone, together = (magnitude_masks(model, 0.5, together=t) for t in (False, True))
    assert [int(mask.sum()) for mask in alone.values()] == [50, 50]
    assert [int(mask.sum()) for mask in together.values()] == [100, 0]


def test_pruning_further_keeps_what_is_pruned() -> None:
    model, _ = support.make("convnet")
    for together in (False, True):
        some = magnitude_masks(model, 0.4, together=together)
        more = magnitude_masks(masked(model, some), 0.7, together=together)
        assert not any((more[name] & ~some[name]).any() for name in some)


def test_zeros_make_the_file_smaller() -> None:
    model, _ = support.make("convnet")
    raw = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    sizes = [compressed_bytes(masked(model, magnitude_masks(model, s))) for s in (0, 0.5, 0.9, 1)]
    assert 0.9 * raw < sizes[0] < 1.01 * raw
    assert sizes == sorted(sizes, reverse=True)
    # 32 bits for each weight that stays, and the entropy of where they are, bound it from below
    weights = sum(mask.numel() for mask in magnitude_masks(model, 0).values())
    assert sizes[2] > weights * 0.1 * 4 * 0.8
    assert sizes[2] < raw * 0.3
    assert compressed_bytes(model.to(torch.bfloat16)) < 0.6 * sizes[0]


# ---- N of M


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (3, 3)])
@pytest.mark.parametrize("shape", [(5, 24), (5, 24, 3, 3)])
def test_exactly_n_of_each_m_inputs_stay_the_largest(n: int, m: int, shape: tuple) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    mask = n_m_mask(weight, n, m)
    assert mask.shape == weight.shape
    for start in range(0, 24, m):
        block, size = mask[:, start : start + m], weight[:, start : start + m].abs()
        assert (block.sum(1) == n).all()
        smallest_kept = size.masked_fill(~block, float("inf")).amin(1)
        largest_gone = size.masked_fill(block, 0.0).amax(1)
        assert (smallest_kept >= largest_gone).all()


def test_n_of_m_holds_with_equal_weights_and_leaves_what_does_not_fit() -> None:
    assert n_m_mask(torch.ones(2, 8)).tolist() == [[True, True, False, False] * 2] * 2
    model, _ = support.make("convnet")
    masks = n_m_masks(model)
    assert "stem.weight" not in masks  # one input channel
    assert set(masks) == {
        name for name, p in model.named_parameters() if p.ndim > 1 and name != "stem.weight"
    }
    for name, weight in masked(model, masks).named_parameters():
        if name in masks:
            assert float((weight == 0).float().mean()) == 0.5


def test_a_mask_of_two_in_four_is_what_torch_can_pack() -> None:
    """torch's own conversion to the hardware's format loses nothing of what is left."""
    from torch.sparse._semi_structured_conversions import (
        sparse_semi_structured_from_dense_cutlass as pack,
    )
    from torch.sparse._semi_structured_conversions import (
        sparse_semi_structured_to_dense_cutlass as unpack,
    )

    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)).half()
    weight = weight * n_m_mask(weight)
    assert torch.equal(unpack(*pack(weight)), weight)


# ---- weights that are computed in each forward pass


def hooked_weight_norm(layer: nn.Module) -> None:
    with pytest.warns(FutureWarning, match="deprecated"):  # but models that have it are about
        nn.utils.weight_norm(layer)


COMPUTED = {
    "masks of torch": lambda layer: torch_prune.l1_unstructured(layer, "weight", 0.5),
    "weight norm, hooks": hooked_weight_norm,
    "spectral norm, hooks": nn.utils.spectral_norm,
    "weight norm": nn.utils.parametrizations.weight_norm,
    "spectral norm": nn.utils.parametrizations.spectral_norm,
}
USES = {
    "magnitude_masks": lambda m: prune.magnitude_masks(m, 0.5),
    "n_m_masks": n_m_masks,
    "renewed": prune.renewed,
    "channel_graph": lambda m: prune.channel_graph(m, torch.randn(2, 8)),
    "remove_lossless": lambda m: prune.remove_lossless(m, torch.randn(2, 8)),
    "fold_batch_norm": lambda m: prune.fold_batch_norm(m, torch.randn(2, 8)),
    "save": lambda m: prune.save(m, "nowhere"),
}


def with_computed(name: str) -> nn.Module:
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    COMPUTED[name](net[2])
    return net


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", COMPUTED)
def test_computed_weights_are_refused_with_the_remedy(name: str, use: str) -> None:
    with pytest.raises(ValueError, match="2.weight is computed from others.*_parametrizations"):
        USES[use](with_computed(name))


def test_what_cannot_be_copied_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="2.weight is computed from others.*prune.remove"):
        masked(with_computed("masks of torch"), {})
    model = models.mlp()
    model[0].seen = model[0].weight * 2
    with pytest.raises(ValueError, match="model cannot be copied .RuntimeError: Only Tensors"):
        masked(model, {})


@pytest.mark.parametrize("name", COMPUTED)
def test_sparsity_counts_the_weights_that_are_used(name: str) -> None:
    net = with_computed(name)
    assert sparsity(net) == (0.25 if name == "masks of torch" else 0.0)


# ---- refusals


def test_refuses_bad_input() -> None:
    model = models.mlp()
    for share in (-0.1, 1.1, True, float("nan")):
        with pytest.raises(ValueError, match="sparsity must be a number from 0 to 1, got"):
            magnitude_masks(model, share)
    with pytest.raises(TypeError, match="model must be of type Module"):
        magnitude_masks([model], 0.5)
    with pytest.raises(ValueError, match="no linear or convolution layer"):
        magnitude_masks(nn.BatchNorm2d(3), 0.5)
    with pytest.raises(ValueError, match=r"masks are of another model: 0.weight .* here"):
        apply_masks(model, magnitude_masks(models.mlp(inputs=5), 0.5))
    with pytest.raises(ValueError, match="masks are of another model: head.weight .* missing"):
        apply_masks(model, {"head.weight": torch.ones(2, dtype=torch.bool)})
    mask = torch.ones(64, 64, dtype=torch.uint8)
    with pytest.raises(ValueError, match="masks must be bool, got torch.uint8 for 0.weight"):
        apply_masks(models.mlp(64, 64), {"0.weight": mask})
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    for masks in (lambda: magnitude_masks(model, 0.5), lambda: n_m_masks(model)):
        with pytest.raises(ValueError, match="0.weight has entries that are not a number"):
            masks()
    with pytest.raises(ValueError, match="weight has entries that are not a number"):
        n_m_mask(model[0].weight)
    with pytest.raises(ValueError, match="inputs divisible by 4, got \\(3, 6\\)"):
        n_m_mask(torch.ones(3, 6))
    with pytest.raises(ValueError, match="n must be at most m, got 5 of 4"):
        n_m_mask(torch.ones(3, 8), 5, 4)
    with pytest.raises(ValueError, match="no layer whose number of inputs"):
        n_m_masks(models.mlp(inputs=5, hidden=7))
