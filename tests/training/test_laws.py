"""One table drives everything that changes a training through the same laws."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from labkit import checkpoint, data, models
from labkit.data import ImageData
from labkit.training import (
    SGD,
    AdamW,
    Recipe,
    Step,
    Training,
    average_weights,
    classify,
    cosine,
    distill,
    fill_masks,
    next_token,
    one_cycle,
    supervised,
    unfreeze,
)


def pictures() -> ImageData:
    """Noise around four patterns: quickly learned."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randint(60, 200, (4, 1, 12, 12), generator=generator)
    labels = torch.arange(96) % 4
    noise = torch.randint(-40, 40, (96, 1, 12, 12), generator=generator)
    images = (patterns[labels] + noise).to(torch.uint8)
    return ImageData("patterns", images, labels, images, labels, tuple("abcd"), 0.5, 0.25)


class Words:
    """A text that repeats itself, without a file: what `TextData` gives, for as long as a test."""

    fingerprint, train_size, vocabulary = "abcab", 32, 6

    def __init__(self, masked: bool) -> None:
        self.masked = masked

    def batches(self, batch_size: int, **_: Any) -> list[tuple[Tensor, Tensor]]:
        tokens = (torch.arange(9) + torch.arange(32)[:, None]) % 5
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        if self.masked:
            generator = torch.Generator().manual_seed(0)
            inputs, targets = data.mask_tokens(inputs, 0.3, 5, generator)
        return list(zip(inputs.split(batch_size), targets.split(batch_size), strict=True))

    def test_batches(self, **_: Any) -> list[tuple[Tensor, Tensor]]:
        return self.batches(8)


def turned(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Flip some of the images: draws from the global generator, as augmentations do."""
    images, labels = batch
    chosen = torch.rand(len(images)) < 0.2
    return torch.where(chosen[:, None, None, None], images.flip(-1), images), labels


def net() -> nn.Module:
    return nn.Sequential(models.convnet(width=8, classes=4), nn.Dropout(0.05))


def reader(causal: bool = True) -> nn.Module:
    return models.transformer(6, width=16, depth=1, heads=2, context=8, causal=causal)


def smallest(outputs: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.mse_loss(outputs, nn.functional.one_hot(labels, 4).float())


def counted(training: Training, steps: Iterator[Step]) -> Iterator[Step]:
    yield from steps


IMAGES = Recipe(net, pictures(), optimizer=SGD(lr=0.05), batch_size=16, epochs=4, device="cpu")
TEXT = Recipe(
    reader, Words(masked=False), task=next_token(), optimizer=AdamW(lr=0.02), batch_size=8,
    epochs=8, device="cpu",
)  # fmt: skip
TEACHER = models.convnet(width=8, classes=4).eval()
TECHNIQUES = {
    "plain": IMAGES,
    "bf16": IMAGES.but(precision="bf16"),
    "fp16": IMAGES.but(precision="fp16"),
    "accumulation": IMAGES.but(accumulate=2, batch_size=8),
    "clipping": IMAGES.but(clip=1.0),
    "AdamW": IMAGES.but(optimizer=AdamW(lr=0.01)),
    "cosine": IMAGES.but(schedule=cosine(warmup=0.1)),
    "one cycle": IMAGES.but(schedule=one_cycle()),
    "constant rate": IMAGES.but(schedule=None),
    "contiguous": IMAGES.but(memory_format="contiguous"),
    "augmentation": IMAGES.but(augment=turned),
    "label smoothing": IMAGES.but(task=classify(0.1)),
    "class weights": IMAGES.but(
        task=classify(class_weights=(1.0, 2.0, 0.5, 1.0)), accumulate=2, batch_size=8
    ),
    "a loss of one's own": IMAGES.but(task=supervised(smallest)),
    "distillation": IMAGES.but(task=distill(classify(), TEACHER, share=0.2)),
    "averaged weights": IMAGES.but(between=(average_weights(0.8),)),
    "unfreezing": IMAGES.but(between=(unfreeze((("0.stem", 0.25), ("0.blocks.0", 0.5))),)),
    "all between": IMAGES.but(
        between=(unfreeze((("0.stem", 0.5),)), average_weights(0.5), counted)
    ),
    "next token": TEXT,
    "masked tokens": TEXT.but(
        model=partial(reader, causal=False), data=Words(masked=True), task=fill_masks(), epochs=12
    ),
    "accumulated tokens": TEXT.but(
        model=partial(reader, causal=False), data=Words(masked=True), task=fill_masks(),
        accumulate=2, epochs=24,
    ),
}  # fmt: skip
each_technique = pytest.mark.parametrize("recipe", TECHNIQUES.values(), ids=TECHNIQUES)


def state(training: Training) -> dict[str, Tensor]:
    both = training.model.state_dict(prefix="model."), training.answering.state_dict()
    return {name: tensor.clone() for part in both for name, tensor in part.items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


@each_technique
def test_learns_the_small_task(recipe: Recipe) -> None:
    training = recipe.training()
    before = recipe.evaluate(training.model)
    list(training)
    after = recipe.evaluate(training.answering)
    if recipe.task.metric.higher_is_better:
        assert after > 0.9 > before
    else:
        assert after < 0.5 * before


@each_technique
def test_repeats_to_the_bit_from_its_seed(recipe: Recipe) -> None:
    first = recipe.training()
    losses = [step.loss for step in first]
    second = recipe.training()
    assert [step.loss for step in second] == losses
    assert same(state(first), state(second))


@each_technique
def test_resumes_to_the_bit_wherever_it_was_cut(recipe: Recipe, tmp_path: Path) -> None:
    whole, cuts = recipe.training(), {1, 5, 9}  # the first, within and beyond an epoch
    for step in whole:
        if step.index + 1 in cuts:
            checkpoint.save(tmp_path / str(step.index + 1), whole)
    for cut in cuts:
        resumed = recipe.but(seed=3).training()  # another start: all must come from the file
        if not isinstance(recipe.data, Words):
            resumed.stream.batches.seed = recipe.seed
        checkpoint.load(tmp_path / str(cut), resumed)
        list(resumed)
        assert same(state(resumed), state(whole)), cut


def held(recipe: Recipe) -> list[Tensor]:
    """The tensors of the recipe's data."""
    if isinstance(recipe.data, ImageData):
        return [recipe.data.train_images, recipe.data.train_labels]
    return [part for batch in recipe.data.batches(8) for part in batch]


@each_technique
def test_leaves_data_teacher_and_generators_of_evaluation_alone(recipe: Recipe) -> None:
    before, teacher = copy.deepcopy(held(recipe)), copy.deepcopy(TEACHER.state_dict())
    training = recipe.training()
    list(training)
    modes, kept = [m.training for m in training.answering.modules()], state(training)
    generator = torch.get_rng_state()
    recipe.evaluate(training.answering)
    assert torch.equal(torch.get_rng_state(), generator)
    assert same(state(training), kept)
    assert [m.training for m in training.answering.modules()] == modes
    assert all(map(torch.equal, held(recipe), before))
    assert same(TEACHER.state_dict(), teacher)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"accumulate": 2},
        {"clip": 1.0},
        {"task": classify(0.1)},
        {"between": (unfreeze((("features.0", 2.0),)), average_weights())},
        {"augment": turned},
    ],
    ids=lambda changes: next(iter(changes)),
)
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_works_on_torchvisions_models(name: str, changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    images = torch.randint(256, (16, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(16) % 4
    some = ImageData("some", images, labels, images, labels, tuple("abcd"), 0.5, 0.25)
    if name == "resnet18" and "between" in changes:
        changes = {"between": (unfreeze((("layer1", 2.0),)), average_weights())}
    model: Callable[[], nn.Module] = partial(getattr(torchvision.models, name), num_classes=4)
    recipe = Recipe(model, some, optimizer=SGD(lr=0.01), batch_size=8, steps=2, device="cpu")
    training = recipe.but(**changes).training()
    before = {name: p.detach().clone() for name, p in training.model.named_parameters()}
    frozen = set()
    for step in training:
        assert step.loss > 0
        frozen |= {n for n, p in training.model.named_parameters() if not p.requires_grad}
    moved = {name for name, p in training.model.named_parameters() if (p != before[name]).any()}
    assert moved == before.keys() - frozen
    assert recipe.scores(training.answering).shape == (16,)
