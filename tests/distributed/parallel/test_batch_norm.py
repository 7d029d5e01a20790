"""Synchronized batch norm on real processes against one process with the joined batch."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from labkit import models
from labkit.distributed import RankError, init, launch
from labkit.distributed.parallel.batch_norm import SyncBatchNorm, synchronize_batch_norm


def pass_through(model, inputs, targets, steps=1):
    """Forward and backward of Σ output x target; return all that a step leaves behind."""
    for _ in range(steps):
        model.zero_grad()
        inputs.grad = None
        outputs = model(inputs)
        (outputs.float() * targets).sum().backward()
    return {
        "outputs": outputs.detach(),
        "inputs": inputs.grad,
        "weights": {name: p.grad for name, p in model.named_parameters()},
        "buffers": dict(model.named_buffers()),
    }


def shard(model, inputs, targets, sizes, steps=1):
    """What `pass_through` leaves behind on this rank, which has its part of the joined batch."""
    with init() as world:
        x, y = inputs.split(sizes)[world.rank], targets.split(sizes)[world.rank]
        x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        return pass_through(synchronize_batch_norm(model), x, y, steps)


def assert_same(model, inputs, targets, sizes, steps=1, tolerance=1e-5):
    """All ranks together leave behind what one process with the joined batch does."""
    arguments = {"model": copy.deepcopy(model), "inputs": inputs, "targets": targets}
    ranks = launch(shard, len(sizes), deadline=60, sizes=sizes, steps=steps, **arguments)
    whole = pass_through(model, inputs.clone().requires_grad_(), targets, steps)
    close = {"rtol": tolerance, "atol": tolerance}
    for part in ("outputs", "inputs"):
        joined = torch.cat([rank[part] for rank in ranks])
        torch.testing.assert_close(joined, whole[part], **close)
    for name, gradient in whole["weights"].items():
        joined = sum(rank["weights"][name] for rank in ranks)
        torch.testing.assert_close(joined, gradient, **close)
    for rank in ranks:
        for name, buffer in whole["buffers"].items():
            torch.testing.assert_close(rank["buffers"][name], buffer, **close)


def layer(kind, channels=6, **settings):
    torch.manual_seed(1)
    made = kind(channels, **settings)
    for parameter in made.parameters():
        nn.init.uniform_(parameter, 0.5, 2)
    return made


def pair(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(2)]


@pytest.mark.parametrize(
    ("made", "shape", "sizes"),
    [
        (layer(nn.BatchNorm1d), (8, 6), [4, 4]),
        (layer(nn.BatchNorm1d), (8, 6, 5), [5, 3]),
        (layer(nn.BatchNorm2d), (7, 6, 4, 5), [2, 1, 4]),
        (layer(nn.BatchNorm2d, affine=False), (6, 6, 3, 3), [4, 0, 1, 1]),
        (layer(nn.BatchNorm2d, track_running_stats=False), (4, 6, 3, 3), [1, 3]),
        (layer(nn.BatchNorm2d, bias=False), (4, 6, 3, 3), [2, 2]),
        (layer(nn.BatchNorm3d), (3, 6, 2, 3, 2), [2, 1]),
        (layer(nn.BatchNorm1d), (2, 6), [1, 1]),
        (layer(nn.BatchNorm1d), (3, 6), [3]),
    ],
)
def test_a_layer(made, shape, sizes):
    assert_same(made, *pair(*shape), sizes)


def test_cumulative_statistics():
    assert_same(layer(nn.BatchNorm2d, momentum=None), *pair(5, 6, 3, 3), [2, 3], steps=3)


def test_channels_last_is_kept():
    x, y = (t.to(memory_format=torch.channels_last) for t in pair(6, 6, 4, 4))
    assert_same(layer(nn.BatchNorm2d), x, y, [4, 2])

    def formats(x):
        with init():
            mine = x.clone(memory_format=torch.preserve_format).requires_grad_()
            out = SyncBatchNorm(6)(mine)
            out.sum().backward()
            return [t.is_contiguous(memory_format=torch.channels_last) for t in (out, mine.grad)]

    assert launch(formats, 2, deadline=60, x=x) == [[True, True]] * 2


def test_a_large_mean_cancels_no_digits():
    x, y = pair(8, 6, 4, 4)
    x += 3000 * torch.arange(1, 9).view(8, 1, 1, 1)  # the ranks' means are far apart, too
    made = layer(nn.BatchNorm2d)
    ranks = launch(shard, 2, deadline=60, model=made, inputs=x, targets=y, sizes=[5, 3])
    exact = copy.deepcopy(made).double()(x.double())
    joined = torch.cat([rank["outputs"] for rank in ranks])
    # float32 knows values of 24,000 to 0.002, and the standard deviation here is 6,900
    torch.testing.assert_close(joined.double(), exact, rtol=1e-6, atol=1e-6)

    near = torch.randn(8, 6, 4, 4) + 10_000  # squares of 1e8, variances of 1
    ranks = launch(shard, 2, deadline=60, model=made, inputs=near, targets=y, sizes=[5, 3])
    exact = copy.deepcopy(made).double()(near.double())
    joined = torch.cat([rank["outputs"] for rank in ranks])
    torch.testing.assert_close(joined.double(), exact, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_inputs_have_32_bit_statistics(dtype):
    x, y = pair(6, 6, 3, 3)
    made = layer(nn.BatchNorm2d)
    ranks = launch(shard, 2, deadline=60, model=made, inputs=x.to(dtype), targets=y, sizes=[2, 4])
    whole = made(x.to(dtype).float())
    joined = torch.cat([rank["outputs"] for rank in ranks])
    assert joined.dtype == ranks[0]["inputs"].dtype == dtype
    assert torch.equal(joined, whole.to(dtype)) or (joined - whole).abs().max() < 0.02
    torch.testing.assert_close(ranks[1]["buffers"]["running_var"], made.running_var)


def resnet():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    return resnet18(num_classes=5).double()  # 1e-5 says nothing of float32 after 20 layers


def test_resnet18():
    x, y = pair(5, 3, 32, 32)[0].double(), pair(5, 5, seed=3)[0].double()
    model = resnet().to(memory_format=torch.channels_last)
    assert_same(model, x, y, [3, 2])


def batch_of_images():
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(8, 1, 28, 28, generator=generator)
    return images, torch.randint(10, (8,), generator=generator)


def train_a_little(model, images, labels):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return {name: value.clone() for name, value in model.state_dict().items()}


def trained_by_ranks(synchronized):
    images, labels = batch_of_images()
    with init() as world:
        torch.manual_seed(0)
        model = models.convnet(width=8)
        if synchronized:
            model = synchronize_batch_norm(model)
        mine = slice(world.rank, None, world.size)
        data_parallel = DistributedDataParallel(model)
        return train_a_little(data_parallel, images[mine], labels[mine])


def far_apart(ranks):
    torch.manual_seed(0)
    whole = train_a_little(models.convnet(width=8), *batch_of_images())
    return max(
        (rank[f"module.{name}"].double() - value.double()).abs().max().item()
        for rank in ranks
        for name, value in whole.items()
    )


def test_data_parallel_training_is_that_of_one_process():
    assert far_apart(launch(trained_by_ranks, 2, deadline=60, synchronized=True)) < 1e-4
    assert far_apart(launch(trained_by_ranks, 2, deadline=60, synchronized=False)) > 1e-2


def test_evaluation_is_the_plain_layer():
    x, _ = pair(4, 6, 3, 3)
    plain = layer(nn.BatchNorm2d)
    plain(x)
    plain.eval()

    def evaluated():
        with init():
            dist.barrier()  # evaluation exchanges nothing: nobody leaves before all have come
            return synchronize_batch_norm(plain)(x).detach()

    for output in launch(evaluated, 2, deadline=60):
        assert torch.equal(output, plain(x))


def test_one_all_reduce_forward_and_one_backward():
    def count():
        sizes = []

        def counting(tensor):
            sizes.append(tensor.numel())
            dist.all_reduce(tensor)

        with init():
            layer = synchronize_batch_norm(nn.BatchNorm1d(6), counting)
            x = torch.randn(2, 6, requires_grad=True)
            y = layer(x)
            forward = list(sizes)
            y.sum().backward()
            return forward, sizes[len(forward) :]

    # count, means and squares of both ranks; two sums a channel
    assert launch(count, 2, deadline=60) == [([2 * 13], [2 * 6])] * 2


def test_one_value_a_channel_is_too_few():
    def alone(share):
        with init() as world:
            SyncBatchNorm(6)(torch.randn(share[world.rank], 6))

    with pytest.raises(RankError, match="more than one value a channel"):
        launch(alone, 2, deadline=60, share=[1, 0])


def test_conversion_leaves_the_model_and_keeps_the_rest():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), layer(nn.BatchNorm2d, 4, momentum=None, eps=1e-3))
    model.append(model[1])  # one layer, twice
    model.append(nn.ModuleList([layer(nn.BatchNorm1d, 4).double().eval()]))
    converted = synchronize_batch_norm(model)
    assert type(model[1]) is nn.BatchNorm2d and type(converted[1]) is SyncBatchNorm
    assert converted[1] is converted[2] and converted[1] is not model[1]
    assert converted[1].momentum is None and converted[1].eps == 1e-3
    assert converted[1].training and not converted[3][0].training
    before, after = model.state_dict(), converted.state_dict()
    assert list(before) == list(after)
    for name in before:
        assert torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype
        assert before[name].data_ptr() != after[name].data_ptr()
    assert isinstance(synchronize_batch_norm(nn.BatchNorm1d(3)), SyncBatchNorm)


class Activated(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


def test_hooks_and_attributes_stay_and_other_kinds_are_refused():
    model, seen = nn.Sequential(layer(nn.BatchNorm2d, 4), nn.Sequential()), []
    model[0].name = "first"
    model[0].register_forward_hook(lambda module, *_: seen.append(module.name))
    synchronize_batch_norm(model)(torch.randn(2, 4, 3, 3))
    assert seen == ["first"]
    parametrized = nn.BatchNorm2d(4)
    nn.utils.parametrize.register_parametrization(parametrized, "weight", nn.Identity())
    for kind in (nn.LazyBatchNorm2d(), Activated(4), parametrized):
        model[1].append(kind)
        with pytest.raises(
            ValueError, match=rf"torch's own batch norms, got {type(kind).__name__} 1.0"
        ):
            synchronize_batch_norm(model)
        del model[1][0]


def test_without_other_ranks_it_is_the_plain_layer():
    x, _ = pair(4, 6, 3, 3)
    assert torch.equal(synchronize_batch_norm(layer(nn.BatchNorm2d))(x), layer(nn.BatchNorm2d)(x))


def test_bad_input():
    with pytest.raises(TypeError, match="model must be of type Module, got \\["):
        synchronize_batch_norm([])
    with pytest.raises(ValueError, match="input must have 2 or more dimensions"):
        SyncBatchNorm(6)(torch.zeros(6))

    def wrong_channels():
        with init():
            dist.barrier()
            SyncBatchNorm(6)(torch.zeros(2, 5))

    with pytest.raises(RankError, match="input must have 6 channels"):
        launch(wrong_channels, 2, deadline=60)
