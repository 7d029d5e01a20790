"""One table drives every way to make a model smaller through the same laws."""

import copy
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torchvision
from support.pruning import snapshot, unchanged
from support.quantizing import trained
from torch import Tensor, nn

from labkit import checkpoint, models
from labkit.compression import prune, quantize
from labkit.data import ImageData
from labkit.fingerprint import fingerprint
from labkit.training import SGD, Recipe, Training, average_weights
from labkit.training.run import Between

Batch = tuple[Tensor, Tensor]


class Technique(NamedTuple):
    """How a model is made smaller, and what happens between the steps of its training."""

    make: Callable[[nn.Module, Batch], nn.Module] = lambda model, _: copy.deepcopy(model)
    between: Callable[[nn.Module], tuple[Between, ...]] = lambda _: ()


def half(criterion: Callable[..., prune.criteria.Scores]) -> Technique:
    return Technique(lambda m, b: prune.channels(m, b[0], 0.5, criterion=criterion))


def masked_channels(model: nn.Module, batch: Batch) -> nn.Module:
    graph = prune.channel_graph(model, batch[0])
    return prune.mask_channels(model, graph, prune.choose(prune.magnitude_scores(graph), 0.5))


def by_taylor(model: nn.Module, batch: Batch) -> nn.Module:
    return prune.channels(
        model, batch[0], flops=0.5, criterion=partial(prune.taylor_scores, batches=[batch])
    )


TECHNIQUES = {
    "masks": Technique(
        lambda m, _: prune.masked(m, prune.magnitude_masks(m, 0.5)),
        lambda m: (prune.hold(prune.magnitude_masks(m, 0.5)),),
    ),
    "masks over all layers": Technique(
        lambda m, _: prune.masked(m, prune.magnitude_masks(m, 0.5, together=True))
    ),
    "two of four": Technique(
        lambda m, _: prune.masked(m, prune.n_m_masks(m)),
        lambda m: (prune.hold(prune.n_m_masks(m)),),
    ),
    "growing masks": Technique(between=lambda _: (prune.grow(0.5, every=3),)),
    "slimming": Technique(between=lambda _: (prune.shrink(0.05),)),
    "slimming and averages": Technique(
        between=lambda _: (prune.shrink(0.05), average_weights(0.8))
    ),
    "channels": half(prune.magnitude_scores),
    "channels by norms": half(prune.batch_norm_scores),
    "channels by Taylor": Technique(by_taylor),
    "masked channels": Technique(masked_channels),
    "dead channels": Technique(lambda m, b: prune.remove_lossless(m, b[0]).model),
    "folded norms": Technique(lambda m, b: prune.fold_batch_norm(m, b[0])[0]),
    "new weights": Technique(lambda m, b: prune.renewed(prune.channels(m, b[0], 0.5))),
    "8 bits": Technique(lambda m, _: quantize.weights(m)),
    "4 bits in groups": Technique(lambda m, _: quantize.weights(m, 4, 32)),
    "training with 4 bits": Technique(lambda m, _: quantize.aware(m, 4)),
    "finished": Technique(lambda m, _: quantize.finish(quantize.aware(m, 4))),
}
INT8 = {
    "static": lambda m, b: quantize.static(m, [b]),
    "dynamic": lambda m, b: quantize.dynamic(m, b[0]),
}
each_technique = pytest.mark.parametrize("technique", TECHNIQUES.values(), ids=TECHNIQUES)
each_way = pytest.mark.parametrize(
    "make",
    [*(technique.make for technique in TECHNIQUES.values()), *INT8.values()],
    ids=[*TECHNIQUES, *INT8],
)


def some_images(channels: int = 1, side: int = 16, count: int = 32) -> ImageData:
    """Noise around ten patterns: quickly learned."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randint(60, 200, (10, channels, side, side), generator=generator)
    labels = torch.arange(count) % 10
    noise = torch.randint(-40, 40, (count, channels, side, side), generator=generator)
    images = (patterns[labels] + noise).to(torch.uint8)
    return ImageData("patterns", images, labels, images, labels, tuple("abcdefghij"), 0.5, 0.25)


@cache
def net() -> nn.Module:
    return trained(8)


def batch_of(images: ImageData) -> Batch:
    return next(iter(images.test_batches()))


def recipe(technique: Technique) -> Recipe:
    """Eight steps over the same 32 images, from what the technique makes of the trained net."""
    images = some_images()
    return Recipe(
        partial(technique.make, net(), batch_of(images)), images, optimizer=SGD(lr=0.02),
        schedule=None, between=technique.between(net()), batch_size=16, epochs=4, device="cpu",
    )  # fmt: skip


def state(training: Training) -> dict[str, Tensor]:
    both = training.model.state_dict(prefix="model."), training.answering.state_dict()
    return {name: tensor.clone() for part in both for name, tensor in part.items()}


@each_technique
def test_steps_lower_the_loss(technique: Technique) -> None:
    losses = [step.loss for step in recipe(technique).training()]
    assert sum(losses[-2:]) < 0.95 * sum(losses[:2])  # over the same images


@each_technique
def test_resumes_to_the_bit(technique: Technique, tmp_path: Path) -> None:
    mine = recipe(technique)
    whole = mine.training()
    for step in whole:
        if step.index + 1 in {1, 5}:
            checkpoint.save(tmp_path / str(step.index + 1), whole)
    for cut in (1, 5):
        resumed = mine.but(seed=3).training()
        resumed.stream.batches.seed = mine.seed
        checkpoint.load(tmp_path / str(cut), resumed)
        list(resumed)
        found, wanted = state(resumed), state(whole)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], value) for name, value in wanted.items()), cut


@each_technique
def test_training_changes_neither_the_given_model_nor_the_values_of_the_recipe(
    technique: Technique,
) -> None:
    before, mine = snapshot(net()), recipe(technique)
    between = fingerprint(mine.between)
    list(mine.training())
    assert unchanged(net(), before) and fingerprint(mine.between) == between


@each_way
def test_leaves_its_input_untouched(make: Callable[[nn.Module, Batch], nn.Module]) -> None:
    model, batch = trained(4), batch_of(some_images())
    model.zero_grad()
    model.stem.weight.requires_grad_(False)
    images, labels = (part.clone() for part in batch)
    generator = torch.get_rng_state()
    before, modes = snapshot(model), [module.training for module in model.modules()]
    held = {name: id(parameter) for name, parameter in model.named_parameters()}
    small = make(model, batch)
    assert unchanged(model, before)
    assert modes == [module.training for module in model.modules()]
    assert held == {name: id(parameter) for name, parameter in model.named_parameters()}
    wanting = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert wanting == ["stem.weight"] and all(p.grad is None for p in model.parameters())
    assert torch.equal(batch[0], images) and torch.equal(batch[1], labels)
    if make is not TECHNIQUES["new weights"].make:  # draws, as it should
        assert torch.equal(torch.get_rng_state(), generator)
    if make in INT8.values():  # what cannot be trained has nothing to train
        assert list(small.parameters()) == [] and not small(images).requires_grad


# int8 takes long to make: `quantize/test_torchvision` does it, and looks closer
@pytest.mark.parametrize("make", [t.make for t in TECHNIQUES.values()], ids=TECHNIQUES)
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_works_on_torchvisions_models(
    name: str, make: Callable[[nn.Module, Batch], nn.Module]
) -> None:
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(num_classes=10)
    batch = batch_of(some_images(channels=3, side=32, count=8))
    small = make(model, batch).eval()
    with torch.no_grad():
        outputs = small(batch[0])
    assert outputs.shape == (8, 10) and outputs.isfinite().all()


# ---- refusals

GRAPH = prune.channel_graph(models.convnet(4), torch.zeros(1, 1, 16, 16))
BAD_MODEL = (TypeError, "model must be of type Module, got ")
REFUSALS: dict[str, tuple[Callable[[nn.Module, Batch], Any], type[Exception], str]] = {
    "masks: model": (lambda m, b: prune.magnitude_masks("net", 0.5), *BAD_MODEL),
    "masks: sparsity": (
        lambda m, b: prune.magnitude_masks(m, 1.5), ValueError, "sparsity must be a number from 0",
    ),
    "masks: masks": (
        lambda m, b: prune.masked(m, {"nose": b[1] > 0}), ValueError, "masks are of another model",
    ),
    "masked: model": (lambda m, b: prune.masked("net", {}), *BAD_MODEL),
    "new weights: model": (lambda m, b: prune.renewed("net"), *BAD_MODEL),
    "two of four: n": (lambda m, b: prune.n_m_masks(m, 5, 4), ValueError, "n must be at most m"),
    "two of four: model": (lambda m, b: prune.n_m_masks("net"), *BAD_MODEL),
    "grow: final": (lambda m, b: prune.grow(-1.0), ValueError, "final must be a number from 0"),
    "grow: every": (lambda m, b: prune.grow(0.5, every=0), ValueError, "every"),
    "slimming: penalty": (lambda m, b: prune.shrink(-1.0), ValueError, "penalty must be"),
    "channels: model": (lambda m, b: prune.channels("net", b[0], 0.5), *BAD_MODEL),
    "channels: example": (
        lambda m, b: prune.channels(m, b[1], 0.5), ValueError, "example must be an input that",
    ),
    "channels: ratio": (lambda m, b: prune.channels(m, b[0], 1.0), ValueError, "ratio must be"),
    "channels: flops": (lambda m, b: prune.channels(m, b[0], flops=0), ValueError, "flops must"),
    "channels: multiple": (
        lambda m, b: prune.channels(m, b[0], 0.5, multiple=0), ValueError, "multiple",
    ),
    "Taylor: batches": (
        lambda m, b: prune.taylor_scores(GRAPH, []), ValueError, "batches is empty",
    ),
    "masked channels: keep": (
        lambda m, b: prune.mask_channels(m, GRAPH, {"nose": b[1] > 0}), ValueError, "keep names",
    ),
    "masked channels: model": (lambda m, b: prune.mask_channels("net", GRAPH, {}), *BAD_MODEL),
    "removed channels: model": (lambda m, b: prune.remove_channels("net", GRAPH, {}), *BAD_MODEL),
    "masked channels: graph": (
        lambda m, b: prune.mask_channels(m, GRAPH, {}), ValueError, "graph is of another model",
    ),
    "dead channels: model": (lambda m, b: prune.remove_lossless("net", b[0]), *BAD_MODEL),
    "dead channels: example": (
        lambda m, b: prune.remove_lossless(m, b[1]), ValueError, "example must be an input that",
    ),
    "folded norms: model": (lambda m, b: prune.fold_batch_norm("net", b[0]), *BAD_MODEL),
    "folded norms: example": (
        lambda m, b: prune.fold_batch_norm(m, b[1]), ValueError, "example must be an input that",
    ),
    "weights: model": (lambda m, b: quantize.weights("net"), *BAD_MODEL),
    "weights: bits": (lambda m, b: quantize.weights(m, 1), ValueError, "bits must be"),
    "weights: group": (lambda m, b: quantize.weights(m, 4, 0), ValueError, "group must be"),
    "aware: model": (lambda m, b: quantize.aware("net"), *BAD_MODEL),
    "aware: keep_float": (
        lambda m, b: quantize.aware(m, keep_float=["nose"]), ValueError, "keep_float names no",
    ),
    "finish: model": (lambda m, b: quantize.finish(m), ValueError, "model rounds no weight"),
    "finish: a name": (lambda m, b: quantize.finish("net"), *BAD_MODEL),
    "static: model": (lambda m, b: quantize.static("net", [b]), *BAD_MODEL),
    "static: batches": (lambda m, b: quantize.static(m, []), ValueError, "batches is empty"),
    "static: ranges": (lambda m, b: quantize.static(m, [b], "best"), ValueError, "ranges must be"),
    "static: keep_float": (
        lambda m, b: quantize.static(m, [b], keep_float="stem"), TypeError, "keep_float must be",
    ),
    "dynamic: model": (lambda m, b: quantize.dynamic("net", b[0]), *BAD_MODEL),
    "dynamic: example": (
        lambda m, b: quantize.dynamic(m, 3), TypeError, "example must be of type Tensor",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS.values(), ids=REFUSALS)
def test_refuses_bad_input_and_names_it(
    call: Callable[[nn.Module, Batch], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(net(), batch_of(some_images()))
