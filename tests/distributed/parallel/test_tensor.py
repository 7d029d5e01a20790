"""Tensor parallel by hand and with DTensor, against one process."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from support.common import ADAMW, tiny_transformer
from support.parallel import resnet18
from torch import nn
from torch.nn import functional as F

from labkit.distributed import init, launch
from labkit.distributed.parallel.tensor import ColumnLinear, RowLinear, split, split_blocks, whole
from labkit.models.transformer import next_token_loss

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def vit():
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(16, 8, 2, 2, 16, 32, num_classes=10)
    nn.init.normal_(model.heads.head.weight)  # zeros would leave no gradient for the rest
    return model


def tokens(count=4):
    whole_text = torch.randint(50, (count, 13), generator=torch.Generator().manual_seed(1))
    return whole_text[:, :-1], whole_text[:, 1:]


def images(size):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, size, size, generator=generator), torch.arange(4)


def cut_mlps(model, group=None):
    for layer in model.encoder.layers:
        split(layer.mlp, columns=["0"], rows=["3"], group=group)
    return model


def cut_classifier(model, group=None):
    return split(model, rows=["fc"], group=group)


MODELS = {  # how to make it, how to cut it, its batch, its loss
    "transformer": (tiny_transformer, split_blocks, tokens, next_token_loss),
    "torchvision's vision transformer": (vit, cut_mlps, lambda: images(16), F.cross_entropy),
    "torchvision's resnet18": (resnet18, cut_classifier, lambda: images(32), F.cross_entropy),
}


def alone(make, cut, batch, loss):
    """Return the loss and {name: gradient} of one process."""
    model, (inputs, targets) = make(), batch()
    value = loss(model(inputs), targets)
    value.backward()
    return value.item(), {name: p.grad for name, p in model.named_parameters()}


def by_hand(make, cut, batch, loss):
    """Return the loss, {name: whole gradient} and the number of parameters on this rank."""
    with init():
        model, (inputs, targets) = cut(make()), batch()
        value = loss(model(inputs), targets)
        value.backward()
        count = sum(p.numel() for p in model.parameters())
        return value.item(), whole(model, gradients=True), count


@pytest.mark.parametrize(("name", "ranks"), [*((name, 2) for name in MODELS), ("transformer", 4)])
def test_loss_and_gradients_equal_those_of_one_process(name, ranks):
    value, gradients = alone(*MODELS[name])
    parameters = sum(gradient.numel() for gradient in gradients.values())
    for mine, whole_gradients, count in launch(
        by_hand,
        ranks,
        **dict(zip(("make", "cut", "batch", "loss"), MODELS[name], strict=True), deadline=60),
    ):
        assert mine == pytest.approx(value, abs=1e-5)
        assert whole_gradients.keys() == gradients.keys()
        torch.testing.assert_close(whole_gradients, gradients, **CLOSE)
        assert count < parameters


def plan_of_blocks():
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

    kinds = {
        **dict.fromkeys(
            ("attention.query", "attention.key", "attention.value", "mlp.up"), ColwiseParallel
        ),
        **dict.fromkeys(("attention.output", "mlp.down"), RowwiseParallel),
    }
    return {f"blocks.*.{name}": kind() for name, kind in kinds.items()}


def by_dtensor():
    """Return the loss and {name: whole gradient} of the same split, by torch."""
    from torch.distributed.tensor import DTensor, init_device_mesh
    from torch.distributed.tensor.parallel import parallelize_module

    with init() as world:
        mesh = init_device_mesh(world.device.type, (world.size,))
        model = parallelize_module(tiny_transformer(), mesh, plan_of_blocks())
        inputs, targets = tokens()
        value = next_token_loss(model(inputs), targets)
        value.backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        cut = [name for name, gradient in gradients.items() if isinstance(gradient, DTensor)]
        full = {
            name: g.full_tensor() if isinstance(g, DTensor) else g for name, g in gradients.items()
        }
        return value.item(), full, cut


def test_dtensor_cuts_the_same_layers_and_computes_the_same():
    value, gradients = alone(*MODELS["transformer"])
    for mine, full, cut in launch(by_dtensor, 2, deadline=60):
        assert mine == pytest.approx(value, abs=1e-5)
        torch.testing.assert_close(full, gradients, **CLOSE)
        assert len(cut) == 2 * (6 + 6)  # blocks x (weights and biases of six layers)


def data_and_tensor(steps):
    """Train on a 2 x 2 mesh: tensor parallel in a row, data parallel between the rows."""
    from torch.distributed.device_mesh import init_device_mesh

    with init() as world:
        mesh = init_device_mesh(world.device.type, (2, 2), mesh_dim_names=("data", "tensor"))
        model = split_blocks(tiny_transformer(), mesh["tensor"].get_group())
        optimizer = torch.optim.AdamW(model.parameters(), **ADAMW)
        inputs, targets = (part.chunk(2)[mesh["data"].get_local_rank()] for part in tokens())
        losses = []
        for _ in range(steps):
            optimizer.zero_grad()
            loss = next_token_loss(model(inputs), targets)
            loss.backward()
            for parameter in model.parameters():
                dist.all_reduce(parameter.grad, group=mesh["data"].get_group())
                parameter.grad /= 2
            optimizer.step()
            losses.append(loss.item())
        return losses, whole(model, gradients=True), whole(model)


def data_and_tensor_by_torch(steps):
    """The same with torch's own parts: DTensor's tensor parallel inside fully_shard."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import parallelize_module

    with init() as world:
        mesh = init_device_mesh(world.device.type, (2, 2), mesh_dim_names=("data", "tensor"))
        model = parallelize_module(tiny_transformer(), mesh["tensor"], plan_of_blocks())
        for block in model.blocks:
            fully_shard(block, mesh=mesh["data"])
        fully_shard(model, mesh=mesh["data"])
        optimizer = torch.optim.AdamW(model.parameters(), **ADAMW)
        inputs, targets = (part.chunk(2)[mesh["data"].get_local_rank()] for part in tokens())
        losses = []
        for _ in range(steps):
            optimizer.zero_grad()
            loss = next_token_loss(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        gradients = {name: p.grad.full_tensor() for name, p in model.named_parameters()}
        return losses, gradients, {n: p.detach().full_tensor() for n, p in model.named_parameters()}


@pytest.mark.parametrize("job", [data_and_tensor, data_and_tensor_by_torch])
def test_data_times_tensor_equals_one_process(job):
    model, (inputs, targets) = tiny_transformer(), tokens()
    optimizer = torch.optim.AdamW(model.parameters(), **ADAMW)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = next_token_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    results = launch(job, 4, steps=3, deadline=60)
    means = [(a + b) / 2 for a, b in zip(results[0][0], results[2][0], strict=True)]
    assert means == pytest.approx(losses, abs=1e-5)
    expected = dict(model.named_parameters())
    for _, gradients, parameters in results:
        torch.testing.assert_close(gradients, {n: p.grad for n, p in expected.items()}, **CLOSE)
        torch.testing.assert_close(
            parameters, {n: p.detach() for n, p in expected.items()}, **CLOSE
        )


# ---- layers


def a_pair(bias):
    """Two layers and a lone one on each rank: shapes, outputs, gradients of the inputs."""
    with init():
        torch.manual_seed(0)
        first, second = nn.Linear(6, 8, bias=bias), nn.Linear(8, 5, bias=bias)
        x = torch.randn(3, 6, requires_grad=True)
        mlp = split(nn.Sequential(first, nn.ReLU(), second), ["0"], ["2"])
        lone = RowLinear(second)
        hidden = torch.randn(3, 8, requires_grad=True)
        output, alone = mlp(x), lone(hidden)
        (output.square().sum() + alone.square().sum()).backward()
        shapes = [tuple(p.shape) for p in mlp.parameters()]
        return output.detach(), x.grad, alone.detach(), hidden.grad, shapes, repr(mlp[0])


@pytest.mark.parametrize("bias", [True, False])
def test_shapes_and_gradients_of_inputs(bias):
    torch.manual_seed(0)
    first, second = nn.Linear(6, 8, bias=bias), nn.Linear(8, 5, bias=bias)
    x = torch.randn(3, 6, requires_grad=True)
    hidden = torch.randn(3, 8, requires_grad=True)
    output, lone = second(first(x).relu()), second(hidden)
    (output.square().sum() + lone.square().sum()).backward()
    expected = [output.detach(), x.grad, lone.detach(), hidden.grad]
    weights = [(4, 6), (4,), (5, 4), (5,)] if bias else [(4, 6), (5, 4)]
    for *tensors, shapes, text in launch(a_pair, 2, bias=bias, deadline=60):
        torch.testing.assert_close(tensors, expected, **CLOSE)
        assert shapes == weights
        assert text == f"ColumnLinear(in_features=6, out_features=4, bias={bias})"


def refusals():
    """Return what two ranks refuse, and that it changed nothing."""
    with init():
        model, said = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), []
        before = [*model]
        for columns, rows in [(["0"], []), (["0"], ["1"]), (["0", "2"], ["0"]), (["2"], ["0"])]:
            try:
                split(model, columns, rows)
            except (TypeError, ValueError) as error:
                said.append(f"{type(error).__name__}: {error}")
        return said, [*model] == before


def test_refusals_name_the_layer():
    for said, same in launch(refusals, 2, deadline=60):
        assert same
        assert "ValueError: rows must name the layer that follows 0, got none" in said[0]
        assert "TypeError: 1 must be an nn.Linear, got ReLU" in said[1]
        assert "weight of shape (3, 6) cannot be cut into 2 equal parts" in said[2]
        assert "weight of shape (3, 6) cannot be cut into 2 equal parts" in said[3]


def on_one_rank():
    with init():
        linear, x = nn.Linear(4, 3), torch.ones(2, 4)
        return [torch.equal(kind(linear)(x), linear(x)) for kind in (ColumnLinear, RowLinear)]


def test_a_world_of_one_needs_no_cut():
    assert launch(on_one_rank, 1, deadline=60) == [[True, True]]
