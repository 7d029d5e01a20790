"""Weight-only quantization: what is stored, what comes out, what is refused."""

import copy

import pytest
import torch
from support import pruning as support
from torch import Tensor, nn

from labkit import models
from labkit.compression import quantize
from labkit.compression.quantize.weight_only import grouped, pack, quantizable, unpack

SETTINGS = [(8, None), (4, 32), (4, None), (3, 10)]


def make(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    if name == "transformer":
        model = models.transformer(50, width=16, depth=2, heads=2, context=8).eval()
        return model, torch.randint(50, (2, 8))
    return support.make(name)


def by_hand(weight: Tensor, bits: int, group: int | None) -> tuple[Tensor, Tensor]:
    """The round trip through torch's own kernel, group by group; and half a step everywhere."""
    flat = weight.detach().flatten(1)
    rounded, half = torch.empty_like(flat), torch.empty_like(flat)
    last = 2 ** (bits - 1) - 1
    for start in range(0, flat.shape[1], group or flat.shape[1]):
        part = slice(start, start + (group or flat.shape[1]))
        low, high = flat[:, part].aminmax(dim=1)
        scale = torch.maximum(low.clamp(max=0) / (-last - 1), high.clamp(min=0) / last)
        rounded[:, part] = torch.fake_quantize_per_channel_affine(
            flat[:, part], scale, torch.zeros(len(flat), dtype=torch.int32), 0, -last - 1, last
        )
        half[:, part] = scale[:, None] / 2
    return rounded.view_as(weight), half.view_as(weight)


@pytest.mark.parametrize(
    ("name", "bits", "group"),
    [(n, *s) for n in ("convnet", "transformer", "vit", "grouped") for s in SETTINGS]
    + [("mobilenet", 4, 32), ("mobilenet", 3, 10), ("resnet18", 8, None)],
)
@torch.no_grad()
def test_equal_to_the_model_with_rounded_weights(name: str, bits: int, group: int | None) -> None:
    model, inputs = make(name)
    before = support.snapshot(model)
    small = quantize.weights(model, bits, group)
    assert support.unchanged(model, before)

    rounded, weights = copy.deepcopy(model), quantizable(model)
    for full in weights:
        layer, _, attribute = full.rpartition(".")
        weight = getattr(rounded.get_submodule(layer), attribute)
        expected, half = by_hand(weight, bits, group)
        got = getattr(small.get_submodule(layer), attribute)
        assert torch.equal(got, expected)
        assert ((got - weight).abs() <= half * (1 + 1e-4)).all()
        weight.copy_(expected)
    assert support.same(small(inputs), rounded(inputs))
    assert not support.same(small(inputs), model(inputs))
    kept = {n for n, _ in model.named_parameters()} - set(weights)
    assert {n for n, _ in small.named_parameters()} == kept
    left = {n for n, p in small.named_parameters() if p.ndim > 1}
    assert all("embedding" in name or name == "class_token" for name in left)


@pytest.mark.parametrize(("bits", "group"), SETTINGS)
def test_only_packed_integers_and_scales_are_stored(bits: int, group: int | None) -> None:
    model, _ = make("vit")
    state, weights = quantize.weights(model, bits, group).state_dict(), quantizable(model)
    assert not set(weights) & set(state)
    for full, (layer, name) in weights.items():
        path = f"{full.removesuffix(name)}parametrizations.{name}.original"
        packed, scale = state.pop(path + "0"), state.pop(path + "1")
        outputs, inputs = getattr(layer, name).flatten(1).shape
        groups = -(-inputs // (group or inputs))
        assert packed.dtype == torch.uint8 and packed.ndim == 1
        assert len(packed) == bits * -(-outputs * inputs // 8)
        assert scale.dtype == torch.float32 and scale.shape == (outputs, groups)
        assert packed.untyped_storage().nbytes() == len(packed)  # and no larger one behind it
    assert set(state) == set(model.state_dict()) - set(weights)


def test_four_bits_in_groups_take_five_bits_a_weight() -> None:
    layer = nn.Linear(256, 64, bias=False)
    stored = quantize.weights(layer, 4, 32).state_dict().values()
    assert sum(t.numel() * t.element_size() for t in stored) == 256 * 64 * 5 // 8


@pytest.mark.parametrize(("bits", "group"), SETTINGS)
def test_another_model_loads_what_was_stored(bits: int, group: int | None) -> None:
    model, images = make("convnet")
    small = quantize.weights(model, bits, group)
    torch.manual_seed(9)
    other = quantize.weights(models.convnet(width=4), bits, group).eval()
    assert not support.same(other(images), small(images))
    other.load_state_dict(small.state_dict())
    assert torch.equal(other(images), small(images))
    with pytest.raises(RuntimeError, match="Missing key|size mismatch"):
        models.convnet(width=4).load_state_dict(small.state_dict())


def test_a_copy_is_a_model_of_its_own() -> None:
    model, images = make("vit")
    small = quantize.weights(model, 4, 32)
    before = small(images)
    copied = copy.deepcopy(small)
    assert torch.equal(copied(images), before)
    for buffer in copied.buffers():
        buffer.zero_()
    assert torch.equal(small(images), before)
    assert not torch.equal(copied(images), before)


def test_attention_gives_the_same_on_its_fast_and_its_slow_path() -> None:
    """nn.MultiheadAttention hands its weights to one kernel when no gradient is asked for."""
    small = quantize.weights(make("vit")[0], 4, 32)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        fast = small(images)
    assert support.same(fast, small(images.requires_grad_()).detach())
    apart = nn.MultiheadAttention(8, 2, kdim=4, vdim=6, batch_first=True)
    names = {"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"}
    assert set(quantizable(apart)) == names
    inputs = torch.rand(2, 3, 8), torch.rand(2, 5, 4), torch.rand(2, 5, 6)
    whole, small = apart(*inputs)[0], quantize.weights(apart, 8)(*inputs)[0]
    assert torch.allclose(whole, small, atol=0.02) and not torch.equal(whole, small)


def test_an_assigned_weight_is_stored_anew_and_biases_can_be_trained() -> None:
    small = quantize.weights(nn.Linear(40, 3), 4, 16)
    weight = torch.randn(3, 40)
    small.weight = weight
    assert torch.equal(small.weight, by_hand(weight, 4, 16)[0])
    small(torch.rand(2, 40)).sum().backward()
    assert small.bias.grad.tolist() == [2.0] * 3


def test_half_precision_keeps_the_integers() -> None:
    model, images = make("convnet")
    small = quantize.weights(model, 4, 32)
    half = copy.deepcopy(small).to(torch.bfloat16)
    assert half(images.bfloat16()).dtype == torch.bfloat16
    packed = small.stem.parametrizations.weight.original0
    assert torch.equal(half.stem.parametrizations.weight.original0, packed)


@torch.no_grad()
def test_more_bits_and_smaller_groups_lose_less() -> None:
    model, images = make("convnet")
    layer = nn.Linear(200, 30)

    def error(bits: int, group: int | None) -> float:
        return float((quantize.weights(layer, bits, group).weight - layer.weight).abs().max())

    by_bits = [error(bits, None) for bits in range(2, 9)]
    assert by_bits == sorted(by_bits, reverse=True) and by_bits[0] > 50 * by_bits[-1]
    by_group = [error(4, group) for group in (200, 100, 50, 10, 1)]
    assert by_group == sorted(by_group, reverse=True)
    assert error(4, 200) == error(4, 999) == error(4, None)
    assert grouped(layer.weight, 999).shape == (30, 200)  # no longer than the channel
    assert grouped(layer.weight, 150).shape == (60, 150)
    answer = model(images)
    far = [(quantize.weights(model, bits)(images) - answer).norm() for bits in (3, 5, 8)]
    assert far[0] > 2 * far[1] > 4 * far[2]


@pytest.mark.parametrize("bits", range(2, 9))
def test_packing_loses_nothing_and_leaves_no_gap(bits: int) -> None:
    for count in (1, 7, 8, 9, 1000):
        generator = torch.Generator().manual_seed(count)
        ends = -(2 ** (bits - 1)), 2 ** (bits - 1)
        integers = torch.randint(*ends, (count,), generator=generator, dtype=torch.int32)
        integers[0], integers[-1] = ends[0], ends[1] - 1
        packed = pack(integers, bits)
        assert packed.dtype == torch.uint8 and len(packed) == bits * -(-count // 8)
        assert torch.equal(unpack(packed, bits, count).int(), integers)
    assert pack(torch.tensor([1, -8, 7, -1]), 4).tolist() == [0x81, 0xF7, 0, 0]


def test_weights_are_those_of_torchao_where_the_scheme_is_the_same() -> None:
    """At 4 bits bit for bit; torchao's Int8WeightOnlyConfig puts the largest weight at 127.5."""
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerGroup
    from torchao.quantization.quant_primitives import MappingType

    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10)), torch.rand(5, 64)
    theirs = copy.deepcopy(model)
    config = IntxWeightOnlyConfig(
        torch.int4, PerGroup(16), mapping_type=MappingType.SYMMETRIC_NO_CLIPPING_ERR
    )
    quantize_(theirs, config)
    ours = quantize.weights(model, 4, 16)
    for i in (0, 2):
        assert torch.equal(theirs[i].weight.dequantize(), ours[i].weight)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)

    theirs = copy.deepcopy(model)
    quantize_(theirs, Int8WeightOnlyConfig())
    largest = model[0].weight.detach().abs().amax(1)
    assert torch.allclose(theirs[0].weight.scale.flatten(), largest / 127.5)
    ours = quantize.weights(model, 8)
    assert (largest / 127 >= (theirs[0].weight.dequantize() - ours[0].weight).abs().T).all()


# ---- what stays float, what is refused


def test_named_layers_and_other_kinds_stay_float() -> None:
    model, _ = make("convnet")
    small = quantize.weights(model, 4, keep_float=("stem", "blocks.1.shortcut"))
    names = dict(small.named_parameters())
    assert torch.equal(names["stem.weight"], model.stem.weight)
    assert "blocks.1.shortcut.weight" in names and "head.weight" not in names
    other = nn.Sequential(
        nn.Embedding(5, 6), nn.LSTM(6, 6), nn.ConvTranspose2d(2, 2, 2), nn.Conv1d(6, 3, 2)
    )
    assert set(quantizable(other)) == {"3.weight"}
    attention = nn.MultiheadAttention(8, 2)
    assert set(quantizable(attention, ["out_proj"])) == {"in_proj_weight"}
    twice = nn.ModuleList([layer := nn.Linear(3, 3), layer])  # one layer under two names
    assert set(quantizable(twice)) == {"0.weight"}
    quantize.weights(twice)


def test_refuses_shared_weights() -> None:
    model = models.transformer(50, width=16, depth=1, heads=2, context=8)
    model.head.weight = model.embedding.token.weight
    with pytest.raises(ValueError, match="embedding.token.weight and head.weight are one tensor"):
        quantize.weights(model)
    small = quantize.weights(model, keep_float=["head"])
    assert small.head.weight is small.embedding.token.weight


def test_refuses_bad_input() -> None:
    model = models.mlp(inputs=4, hidden=8)
    for bits in (1, 9):
        with pytest.raises(ValueError, match="bits must be a whole number from 2 to 8"):
            quantize.weights(model, bits)
    for group in (0, True):
        with pytest.raises(ValueError, match="group must be a whole number of at least 1"):
            quantize.weights(model, 4, group)
    with pytest.raises(TypeError, match="model must be of type Module, got \\["):
        quantize.weights([model])
    with pytest.raises(TypeError, match="keep_float must be a collection of names"):
        quantize.weights(model, keep_float="head")
    with pytest.raises(ValueError, match="keep_float names no layer of the model: nose"):
        quantize.weights(model, keep_float=["nose"])
    with pytest.raises(ValueError, match="nothing to quantize"):
        quantize.weights(nn.BatchNorm2d(3))
    with pytest.raises(ValueError, match="is parametrized already"):
        quantize.weights(quantize.weights(model))
    with pytest.raises(ValueError, match="must be float32 and finite, got torch.float64"):
        quantize.weights(copy.deepcopy(model).double())
    with torch.no_grad():
        next(model.parameters())[0] = float("nan")
    with pytest.raises(ValueError, match="weight must be float32 and finite"):
        quantize.weights(model)
