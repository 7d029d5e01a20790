"""Traffic: bytes of operations against arithmetic on their shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from labkit.measure import traffic

N = 1000
FP32 = 4 * N


@pytest.fixture
def a() -> torch.Tensor:
    return torch.ones(N)


@pytest.fixture
def b() -> torch.Tensor:
    return torch.ones(N)


def test_out_of_place_reads_inputs_and_writes_the_output(a: torch.Tensor, b: torch.Tensor):
    assert traffic(lambda: a + b) == 3 * FP32
    assert traffic(lambda: a.relu()) == 2 * FP32
    assert traffic(lambda: a.sum()) == FP32 + 4
    assert traffic(lambda: a[0].item()) == 4
    assert traffic(lambda: torch.cat([a, b])) == 4 * FP32


def test_an_input_that_is_used_twice_is_read_once(a: torch.Tensor):
    assert traffic(lambda: a * a) == 2 * FP32


def test_in_place_reads_and_writes_the_same_memory(a: torch.Tensor, b: torch.Tensor):
    assert traffic(lambda: a.mul_(2)) == 2 * FP32
    assert traffic(lambda: a.add_(b)) == 3 * FP32
    assert traffic(lambda: torch._foreach_add_([a, b], 1.0)) == 4 * FP32


def test_what_is_overwritten_is_not_read(a: torch.Tensor, b: torch.Tensor):
    assert traffic(lambda: a.copy_(b)) == 2 * FP32
    assert traffic(lambda: a.zero_()) == FP32
    assert traffic(lambda: torch.zeros(N)) == FP32
    assert traffic(lambda: torch.ones_like(a)) == FP32
    assert traffic(lambda: a.new_zeros(N)) == FP32
    c = torch.empty(N)
    assert traffic(lambda: torch.add(a, b, out=c)) == 3 * FP32
    assert traffic(lambda: torch.add(a, b, out=a)) == 3 * FP32  # here it is read, as an input


def test_allocating_and_views_are_free(a: torch.Tensor):
    assert traffic(lambda: torch.empty(N)) == 0
    assert traffic(lambda: a.view(10, 100).t()[2:5].unsqueeze(0).detach()) == 0
    assert traffic(lambda: a.view(10, 100).t().contiguous()) == 2 * FP32


def test_repeated_bytes_of_an_expanded_tensor_count_once(a: torch.Tensor):
    assert traffic(lambda: a.expand(5, N) + 1) == FP32 + 5 * FP32


def test_dtypes_count_by_their_size(a: torch.Tensor):
    assert traffic(lambda: a.to(torch.bfloat16)) == 4 * N + 2 * N
    half = a.to(torch.bfloat16)
    assert traffic(lambda: half + half) == 2 * 2 * N


def test_looking_up_rows_does_not_read_the_table():
    table, rows = nn.Embedding(N, 16), torch.tensor([1, 2, 3])
    expected = 3 * 8 + 2 * (3 * 16 * 4)
    assert traffic(lambda: table(rows)) == expected
    assert traffic(lambda: table.weight[rows]) == expected


def test_a_training_step_in_closed_form():
    """Linear without bias, then a sum, and back: every product and its operands."""
    layer, images = nn.Linear(8, 4, bias=False), torch.ones(32, 8)
    x, w, y = 32 * 8, 8 * 4, 32 * 4
    forward = (x + w + y) + (y + 1)
    backward = 1 + (1 + x + w)  # ones; the gradient of y is expanded from one number
    step = traffic(lambda: layer(images).sum().backward())
    assert step == 4 * (forward + backward)


def test_bf16_moves_fewer_bytes_through_activations():
    model = nn.Sequential(*(nn.Sequential(nn.Linear(16, 16), nn.ReLU()) for _ in range(6)))
    images = torch.ones(4096, 16)
    full = traffic(lambda: model(images))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = traffic(lambda: model(images))
    assert 0.5 < half / full < 0.6


def test_resnet18():
    """Each convolution's and each norm's weights at least, twice the activations at least."""
    from torchvision.models import resnet18

    model = resnet18().eval()
    with torch.no_grad():
        one = traffic(lambda: model(torch.ones(1, 3, 32, 32)))
        three = traffic(lambda: model(torch.ones(3, 3, 32, 32)))
    parameters = 4 * sum(p.numel() for p in model.parameters())
    assert (3 * one - three) / 2 == pytest.approx(parameters, rel=2e-3)  # what no batch changes


def test_bad_input_is_named():
    with pytest.raises(TypeError, match="function.*got 3"):
        traffic(3)
