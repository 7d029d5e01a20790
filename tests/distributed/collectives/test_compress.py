"""Compressed gradients on real processes: torch's hooks, and PowerSGD against its laws."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import (
    bf16_compress_hook,
    fp16_compress_hook,
)
from torch.nn.parallel import DistributedDataParallel

from labkit import models
from labkit.distributed import init, launch
from labkit.distributed.collectives.compress import (
    PowerSGD,
    low_rank_means,
    low_rank_numbers,
)
from labkit.distributed.collectives.network_meter import NetworkMeter

HOOKS = {torch.float16: fp16_compress_hook, torch.bfloat16: bf16_compress_hook}


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))


def backward(model, world, step=0):
    generator = torch.Generator().manual_seed(10 * step + world.rank)
    model.zero_grad()
    model(torch.randn(8, 20, generator=generator)).square().mean().backward()
    return [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("dtype", HOOKS)
def test_sixteen_bits_are_torchs_own_and_as_near_as_their_digits(dtype):
    def both(hook):
        with init() as world:
            exact = backward(perceptron(), world)
            for gradient in exact:
                dist.all_reduce(gradient)
                gradient /= world.size
            metered, plain = (DistributedDataParallel(perceptron()) for _ in range(2))
            metered.register_comm_hook(NetworkMeter(dtype), NetworkMeter.hook)
            # by another name: torch built without CUDA refuses its own bf16 hook by its name
            plain.register_comm_hook(None, lambda state, bucket: hook(state, bucket))
            return backward(metered, world), backward(plain, world), exact

    for ours, theirs, exact in launch(both, 2, deadline=60, hook=HOOKS[dtype]):
        assert all(map(torch.equal, ours, theirs))
        largest = max(gradient.abs().max() for gradient in exact)
        for mine, right in zip(ours, exact, strict=True):
            # two roundings of shares and one of their sum, each half of eps at most
            assert (mine - right).abs().max() <= 1.5 * torch.finfo(dtype).eps * largest
            assert mine.dtype == torch.float32


def alone(tensors):
    """The means of a single rank."""
    return tensors


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (7, 1)])
def test_full_rank_is_exact(shape):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=generator, dtype=torch.float64)
    start = torch.randn(shape[1], min(shape), generator=generator, dtype=torch.float64)
    (p,), (q,) = low_rank_means([matrix], [start], alone)
    torch.testing.assert_close(p @ q.T, matrix)
    torch.testing.assert_close(p.T @ p, torch.eye(min(shape), dtype=torch.float64))


def test_warm_starts_come_to_the_best_approximation():
    matrix = torch.randn(12, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    best = u[:, :2] * s[:2] @ v[:2]
    q = torch.randn(9, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    errors = []
    for _ in range(200):
        (p,), (q,) = low_rank_means([matrix], [q], alone)
        errors.append(((p @ q.T - matrix).norm() / (best - matrix).norm()).item())
    assert errors[0] > 1.01 and errors[-1] == pytest.approx(1, abs=1e-6)


def test_a_gradient_of_zeros_does_no_harm():
    (p,), (q,) = low_rank_means([torch.zeros(6, 4)], [torch.ones(4, 2)], alone)
    assert torch.equal(p @ q.T, torch.zeros(6, 4))
    (p,), (q,) = low_rank_means([torch.ones(6, 4)], [q], alone)  # from a start of zeros, too
    assert torch.isfinite(p @ q.T).all()


def compressed_steps(steps, rank, error_feedback):
    """Per rank: own gradients, what DDP made of them, and what was left out at the end."""
    with init() as world:
        power = PowerSGD(rank, error_feedback=error_feedback)
        model = perceptron()
        # buckets of 1 kB: several are under way at once, which torch's own hook does not survive
        data_parallel = DistributedDataParallel(model, bucket_cap_mb=0.001)
        data_parallel.register_comm_hook(power, PowerSGD.hook)
        own = [backward(perceptron(), world, step) for step in range(steps)]
        sent = [backward(data_parallel, world, step) for step in range(steps)]
        left = [power.left_out.get(weight) for weight in model.parameters()]
        return own, sent, left


def test_what_is_left_out_is_not_lost():
    ranks = launch(compressed_steps, 2, deadline=60, steps=5, rank=2, error_feedback=True)
    for own, sent, left in ranks:
        for number, rest in enumerate(left):
            to_send = sum(gradients[number] for gradients in own)
            received = sum(gradients[number] for gradients in sent)
            if to_send.dim() == 2:
                assert rest.norm() > 0.01 * to_send.norm()  # something was left out
                torch.testing.assert_close(received + rest, to_send, rtol=1e-5, atol=1e-6)
            else:
                assert rest is None
    for first, second in zip(ranks[0][1], ranks[1][1], strict=True):
        assert all(map(torch.equal, first, second))  # all ranks receive the same


def test_without_feedback_it_is_lost():
    for own, sent, left in launch(
        compressed_steps, 2, deadline=60, steps=5, rank=2, error_feedback=False
    ):
        assert left == [None] * 4
        to_send = sum(gradients[0] for gradients in own)
        received = sum(gradients[0] for gradients in sent)
        assert (received - to_send).norm() > 0.01 * to_send.norm()


def test_vectors_are_exact_and_matrices_are_of_their_rank():
    (own, sent, _), (others, *_) = launch(
        compressed_steps, 2, deadline=60, steps=1, rank=2, error_feedback=True
    )
    for mine, other, received in zip(own[0], others[0], sent[0], strict=True):
        if mine.dim() == 1:
            torch.testing.assert_close(received, (mine + other) / 2)
        else:
            assert torch.linalg.matrix_rank(received) == 2


def test_a_rank_too_large_to_save_anything_is_the_plain_mean():
    ranks = launch(compressed_steps, 2, deadline=60, steps=1, rank=30, error_feedback=True)
    for a, b, received in zip(ranks[0][0][0], ranks[1][0][0], ranks[0][1][0], strict=True):
        torch.testing.assert_close(received, (a + b) / 2)


def test_convolutions_in_channels_last_and_the_formula():
    def count():
        with init():
            torch.manual_seed(0)
            model = models.convnet(width=8).to(memory_format=torch.channels_last)
            numbers = 0

            def counting(tensor):
                nonlocal numbers
                numbers += tensor.numel()
                dist.all_reduce(tensor)

            data_parallel = DistributedDataParallel(model)
            power = PowerSGD(1, all_reduce=counting)
            data_parallel.register_comm_hook(power, PowerSGD.hook)
            data_parallel(torch.randn(4, 1, 28, 28)).square().mean().backward()
            first = model.blocks[1].conv1.weight.grad
            return numbers, [p.shape for p in model.parameters()], first.flatten(1)

    for numbers, shapes, gradient in launch(count, 2, deadline=60):
        assert numbers == sum(low_rank_numbers(shape, 1) for shape in shapes)
        assert numbers < 0.2 * sum(shape.numel() for shape in shapes)
        assert torch.linalg.matrix_rank(gradient) == 1


def test_numbers_by_hand():
    assert low_rank_numbers((30, 20), 2) == 2 * (30 + 20)
    assert low_rank_numbers((16, 8, 3, 3), 1) == 16 + 72
    assert low_rank_numbers((30, 20), 20) == 600  # more than the matrix itself: sent whole
    assert low_rank_numbers((50,), 1) == 50
    assert low_rank_numbers((), 1) == 1
    assert low_rank_numbers((0, 3), 1) == 0


@pytest.mark.parametrize("wrong", [0, -1, True])
def test_wrong_ranks(wrong):
    with pytest.raises(ValueError, match="rank must be a whole number of at least 1, got"):
        PowerSGD(wrong)
    with pytest.raises(ValueError, match="rank must be a whole number of at least 1, got"):
        low_rank_numbers((3, 3), wrong)
