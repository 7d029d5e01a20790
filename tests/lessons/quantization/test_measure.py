"""What the quantization lesson measures: samples beside the first model, grids, bounds, files."""

from __future__ import annotations

import pytest
import torch
from support.common import tiny_data
from torch import nn

from labkit import data, models
from labkit.compression.quantize.affine import round_trip
from labkit.lessons.quantization import measure
from labkit.measure import Timing
from labkit.training import evaluate, next_token


def test_more_bits_and_scales_for_each_channel_make_less_noise():
    torch.manual_seed(0)
    weight = torch.randn(8, 64) * torch.logspace(-1, 1, 8)[:, None]
    rows = measure.grids_table(weight).rows
    eight, four = ([float(row[column].removesuffix(" dB")) for row in rows] for column in (1, 2))
    assert all(20 < e - f < 28 for e, f in zip(eight, four, strict=True))  # 6 dB a bit
    assert four[2] > four[0] and four[3] > four[1]
    assert "symmetric, per channel" in rows[3][0]


@pytest.mark.parametrize(("widths", "gain"), [([1.0, 1.0], 0.0), ([1.0, 0.01], 10.0)])
def test_what_a_scale_a_channel_is_worth(widths, gain):
    line = torch.linspace(-1, 1, 101)
    found = measure.channel_gain(torch.stack([width * line for width in widths]))
    assert found == pytest.approx(0, abs=0.1) if gain == 0 else found > gain


class Shifted(nn.Module):
    """Logits that are the inputs, with some classes' order changed."""

    def __init__(self, shift):
        super().__init__()
        self.shift = torch.tensor(shift)

    def forward(self, inputs):
        return inputs + self.shift


def test_models_are_paired_with_the_first():
    inputs, labels = torch.eye(2).repeat(50, 1), torch.tensor([0, 1]).repeat(50)
    test = [(inputs[:60], labels[:60]), (inputs[60:], labels[60:])]
    made = {"good": Shifted([0.0, 0.0]), "bad": Shifted([2.0, 0.0]), "same": Shifted([0.1, 0.1])}
    times = {
        name: Timing(name, (seconds,) * 8) for name, seconds in zip(made, (2, 1, 2), strict=True)
    }
    sizes = {"good": 400, "bad": 100, "same": 400}
    found = measure.measured(made, test, sizes=sizes, times=times)
    assert [round(found.value(name).value) for name in made] == [100, 50, 100]
    away = [found.value(name, measure.DISTANCE).value for name in made]
    assert away[:2] == pytest.approx([0, 200])
    assert found.verdict("bad").call == "worse" and found.verdict("bad").estimate.value == -50
    assert found.verdict("same").call in ("no difference that matters", "can't tell")
    assert found.verdict("bad", on="size").figures.startswith("4.00x")
    assert found.verdict("bad", on="latency").figures.startswith("2.00x")


def test_texts_are_compared_by_their_loss():
    tokens = torch.randint(7, (6, 5), generator=torch.Generator().manual_seed(0))
    models = {}
    for name in ("one", "other"):
        torch.manual_seed(len(models))
        models[name] = nn.Embedding(7, 7)
    found = measure.measured(models, [(tokens, tokens)], next_token())
    mine = evaluate(models["other"], [(tokens, tokens)], next_token())
    assert found.value("other").value == pytest.approx(mine)
    assert found.verdict("other").quantity.unit == "nats"


def test_clip_sweep():
    torch.manual_seed(0)
    model, images = models.convnet(4).eval(), tiny_data(40)
    batch = next(iter(images.test_batches(40)))
    before = model(batch[0])
    sweep = measure.clip_sweep(model, batch, [8, 3], [5, 100])
    assert torch.equal(model(batch[0]), before)
    assert not any(module._forward_hooks for module in model.modules())
    for what in (measure.WEIGHTS, measure.ACTIVATIONS):
        _, fine = sweep[what, 8]
        _, coarse = sweep[what, 3]
        assert fine[100][0] < coarse[100][0] < coarse[5][0]
        assert 0.1 < fine[100][0] < 2
    values, outcomes = sweep[measure.WEIGHTS, 3]
    assert torch.equal(values, model.stem.weight.detach().flatten())
    steps = measure.clipped_grid(model.stem.weight.detach(), 3, 100)
    changed = models.convnet(4)
    changed.load_state_dict(model.state_dict())
    with torch.no_grad():
        changed.stem.weight.copy_(round_trip(model.stem.weight, steps))
    right = (changed.eval()(batch[0]).argmax(1) == batch[1]).float().mean()
    assert outcomes[100][1] == pytest.approx(100 * float(right))


def test_clipped_grid_covers_the_share():
    values = torch.tensor([-1.0, 4.0])
    both, one = measure.clipped_grid(values, 8, 50), measure.clipped_grid(values.abs(), 8, 50)
    ends = torch.tensor([-9.0, 9.0])
    assert round_trip(ends, both)[1] == pytest.approx(2) and both.zero_point == 0
    assert round_trip(ends, one).tolist() == pytest.approx([0, 2])


def test_the_language_model_learns():
    tokens = torch.arange(4000) % 10
    text = data.TextData(tokens, tokens, 16, 10, 0, None)
    some = [batch for batch, _ in zip(text.batches(8), range(2), strict=False)]
    new, trained = (measure.language_model(text, 16, steps) for steps in (1, 30))
    before, after = (evaluate(model, some, next_token()) for model in (new, trained))
    assert after < before - 0.2


def test_torchao_s_eager_way_leaves_the_model_alone():
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(64, 32)), torch.randn(8, 64)
    before = model(inputs)
    rounded = measure.torchao_eager(model)(inputs)
    assert torch.equal(model(inputs), before)
    assert 0 < measure.distance(before, rounded) < 0.03
