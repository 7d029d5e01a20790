"""The loop against bare PyTorch: same mathematics, same bits."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from labkit import models
from labkit.training import Precision, cosine, evaluate, supervised, train


def make_batches(count: int = 6, size: int = 8, seed: int = 0) -> list:
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 64, generator=generator),
            torch.randint(10, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def make_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return models.mlp()


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_is_the_bare_loop_to_the_bit() -> None:
    batches, ours, bare = make_batches(), make_model(), make_model()
    losses = [step.loss for step in train(ours, batches, sgd(ours), epochs=2)]

    expected, optimizer = [], sgd(bare)
    for _ in range(2):
        for inputs, labels in batches:
            optimizer.zero_grad()
            loss = F.cross_entropy(bare(inputs), labels)
            loss.backward()
            optimizer.step()
            expected.append(loss.item())
    assert losses == expected
    assert same_weights(ours, bare)


@pytest.mark.parametrize("precision", ["bf16", Precision("unscaled", torch.float16), "fp16"])
def test_mixed_precision_is_torch_autocast(precision: str | Precision) -> None:
    batches, ours, bare = make_batches(), make_model(), make_model()
    list(train(ours, batches, sgd(ours), precision=precision))

    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    scaler = torch.amp.GradScaler("cpu", enabled=precision == "fp16")
    optimizer = sgd(bare)
    for inputs, labels in batches:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=dtype):
            loss = F.cross_entropy(bare(inputs), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert same_weights(ours, bare)


def test_schedule_is_that_of_torch_cosine() -> None:
    model, reference = make_model(), make_model()
    optimizer = sgd(reference)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=11)
    rates = []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    ours = train(model, make_batches(), sgd(model), schedule=cosine(), epochs=2)
    assert [step.lr for step in ours] == pytest.approx(rates, abs=1e-12)


@pytest.mark.parametrize("sizes", [(8, 8, 8, 8), (8, 4, 2, 1)])
def test_accumulated_gradients_are_those_of_the_joined_batch(sizes: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [
        (torch.randn(n, 64, generator=generator), torch.randint(10, (n,), generator=generator))
        for n in sizes
    ]
    joined = [tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))]
    split, whole = make_model().double(), make_model().double()
    (a,) = train(split, [(x.double(), y) for x, y in parts], sgd(split), accumulate=4)
    (b,) = train(whole, [(x.double(), y) for x, y in joined], sgd(whole))
    assert a.loss == pytest.approx(b.loss, rel=1e-12)
    for p, q in zip(split.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("count", "accumulate"), [(10, 4), (6, 6), (5, 2), (7, 1), (4, 3)])
def test_the_last_step_of_an_epoch_takes_the_batches_that_are_left(
    count: int, accumulate: int
) -> None:
    sizes = [8, 5, 3, 8, 1, 6, 2, 8, 4, 7][:count]
    parts = [(x[:n], y[:n]) for (x, y), n in zip(make_batches(count), sizes, strict=True)]
    windows = [parts[at : at + accumulate] for at in range(0, count, accumulate)]
    joined = [tuple(torch.cat(tensors) for tensors in zip(*w, strict=True)) for w in windows]
    split, whole = make_model().double(), make_model().double()
    doubles = [[(x.double(), y) for x, y in batches] for batches in (parts, joined)]
    used: list[int] = []
    split.register_forward_pre_hook(lambda _, inputs: used.append(len(inputs[0])))
    run = train(split, doubles[0], sgd(split), accumulate=accumulate, epochs=3)
    steps = list(run)
    expected = list(train(whole, doubles[1], sgd(whole), epochs=3))
    assert [s.loss for s in steps] == pytest.approx([s.loss for s in expected], rel=1e-9)
    assert [s.epoch for s in steps] == [s.epoch for s in expected]
    assert len(run) == 3 * len(windows) == len(steps)
    assert used == 3 * sizes
    for p, q in zip(split.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_clipping_bounds_the_norm_of_the_gradient(precision: str) -> None:
    model = make_model()
    for _ in train(model, make_batches(), sgd(model), clip=0.01, precision=precision):
        norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
        assert float(norm) == pytest.approx(0.01, rel=1e-3)  # it was larger: about 1


def test_clock_stands_still_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    monkeypatch.setattr("labkit.training.loop.perf_counter", clock)
    model = make_model()
    for step in train(model, make_batches(), sgd(model)):
        now += 1000.0
        # data, forward, backward, optimizer: one tick each
        assert step.phases == (1.0, 1.0, 1.0, 1.0, 0.0)
        assert step.seconds == 4.0


def test_breaking_off_and_iterating_again_loses_no_batch() -> None:
    batches, broken, whole = make_batches(), make_model(), make_model()
    training = train(broken, batches, sgd(broken), epochs=3)
    for step in training:
        if step.index == 7:
            break
    assert [step.index for step in training] == list(range(8, 18))
    list(train(whole, batches, sgd(whole), epochs=3))
    assert same_weights(broken, whole)


def test_an_interrupt_within_a_step_leaves_a_training_that_goes_on() -> None:
    batches, broken, whole = make_batches(), make_model(), make_model()
    calls = 0

    def interrupted_once(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return F.cross_entropy(outputs, labels)

    training = train(broken, batches, sgd(broken), task=supervised(interrupted_once))
    with pytest.raises(KeyboardInterrupt):
        list(training)
    assert [step.index for step in training] == [2, 3, 4, 5]
    list(train(whole, batches, sgd(whole)))
    assert same_weights(broken, whole)


def test_works_with_a_data_loader_and_a_torchvision_model() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=4)
    data = TensorDataset(torch.randn(8, 3, 32, 32), torch.randint(4, (8,)))
    before = copy.deepcopy(model.state_dict())
    steps = list(train(model, DataLoader(data, batch_size=4, shuffle=True), sgd(model), epochs=2))
    assert [step.epoch for step in steps] == [0, 0, 1, 1]
    assert all(not torch.equal(before[k], p) for k, p in model.named_parameters())


def test_evaluating_between_steps_does_not_leave_evaluation_mode_on() -> None:
    model = nn.Sequential(make_model(), nn.BatchNorm1d(10))
    for _ in train(model, make_batches(), sgd(model)):
        assert model[1].training
        model.eval()


def test_parts_that_were_frozen_stay_so_whoever_evaluates() -> None:
    model = nn.Sequential(make_model(), nn.BatchNorm1d(10), nn.Dropout(0.5))
    model[1].eval()
    training = train(model, make_batches(), sgd(model), epochs=2)
    for step in training:
        assert [part.training for part in model] == [True, False, step.index < 3]
        evaluate(model, make_batches())
        if step.index == 2:
            model[2].eval()  # and from now on this one
        else:
            model.eval()
        if step.index == 4:
            break
    for _ in training:
        assert [part.training for part in model] == [True, False, False]
        model.eval()
    assert torch.equal(model[1].running_mean, torch.zeros(10))


def test_a_nan_loss_stops_before_the_weights_are_touched() -> None:
    batches, model = make_batches(), make_model()
    batches[2] = (batches[2][0] * float("nan"), batches[2][1])
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 2 .*learning rate"):
        list(train(model, batches, sgd(model)))
    assert all(torch.isfinite(p).all() for p in model.parameters())


BAD_ARGUMENTS = [
    ({"epochs": -1}, ValueError, "epochs must be a whole number of at least 1, got -1"),
    ({"epochs": 1.5}, TypeError, "epochs"),
    ({"steps": 0}, ValueError, "steps"),
    ({"steps": 3, "epochs": 3}, ValueError, "epochs or steps, not both"),
    ({"precision": "fp8"}, ValueError, "precision must be one of fp32, bf16, fp16"),
    ({"accumulate": 0}, ValueError, "accumulate"),
    ({"accumulate": 7}, ValueError, "too short"),
    ({"clip": 0.0}, ValueError, "clip"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_ARGUMENTS)
def test_refuses_bad_arguments(arguments: dict, error: type[Exception], message: str) -> None:
    model = make_model()
    with pytest.raises(error, match=message):
        train(model, make_batches(), sgd(model), **arguments)


def test_refuses_bad_data() -> None:
    model = make_model()
    with pytest.raises(ValueError, match="gave nothing in epoch 0"):
        list(train(model, [], sgd(model), steps=1))
    with pytest.raises(ValueError, match="gave nothing in epoch 1"):
        list(train(model, iter(make_batches()), sgd(model), steps=99))
    with pytest.raises(TypeError, match="no length"):
        train(model, iter(make_batches()), sgd(model))
    with pytest.raises(TypeError, match=r"pair of tensors \(inputs, labels\), got Tensor"):
        list(train(model, [torch.zeros(3, 64)], sgd(model)))
    with pytest.raises(ValueError, match="no parameters"):
        train(nn.Flatten(), make_batches(), sgd(model))
