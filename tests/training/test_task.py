"""Tasks: the mean is over the targets that count, whatever the cut; a score is one an example."""

import copy

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from labkit.training import (
    IGNORE,
    classify,
    distill,
    evaluate,
    fill_masks,
    next_token,
    scores,
    supervised,
    train,
)
from labkit.training.task import LOSS

VOCABULARY, CLASSES = 7, 4


def reader(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Embedding(VOCABULARY, 8), nn.Linear(8, VOCABULARY)).double()


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, CLASSES)).double()


def text() -> tuple[Tensor, Tensor]:
    """Six texts with 1, 12, 0, 3, 12 and 2 targets that count."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCABULARY, (6, 12), generator=generator)
    targets = tokens.roll(-1, 1)
    for row, counted in enumerate((1, 12, 0, 3, 12, 2)):
        targets[row, counted:] = IGNORE
    return tokens, targets


def points(labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    return inputs, torch.tensor([0, 1, 1, 3, IGNORE, 2]) if labels is None else labels


def shares() -> Tensor:
    return torch.rand(6, CLASSES, dtype=torch.float64).softmax(1)


TASKS = {
    "classification": (classify(), net, points),
    "smoothed": (classify(label_smoothing=0.2), net, points),
    "class weights": (classify(class_weights=(1.0, 0.0, 0.25, 4.0)), net, points),
    "both": (classify(0.1, class_weights=(1.0, 0.5, 0.25, 4.0)), net, points),
    "shares of classes": (classify(), net, lambda: points(shares())),
    "next token": (next_token(), reader, text),
    "masked tokens": (fill_masks(), reader, text),
    "distilled classes": (distill(classify(0.1, (1.0, 2.0, 3.0, 4.0)), net(9).eval()), net, points),
    "distilled tokens": (distill(next_token(), reader(9).eval(), 0.7, 3.0), reader, text),
    "mean squared error": (supervised(F.mse_loss), net, lambda: points(shares())),
}


@pytest.mark.parametrize("cuts", [(6,), (1, 1, 1, 1, 1, 1), (2, 1, 3), (3, 3)])
@pytest.mark.parametrize("name", TASKS)
def test_small_batches_add_up_to_the_joined_one(name: str, cuts: tuple[int, ...]) -> None:
    task, make, data = TASKS[name]
    whole, split = make(), make()
    inputs, targets = data()
    parts = list(zip(inputs.split(cuts), targets.split(cuts), strict=True))
    one, other = (torch.optim.SGD(model.parameters(), lr=1.0) for model in (whole, split))
    (a,) = train(whole, [(inputs, targets)], one, task=task)
    (b,) = train(split, parts, other, task=task, accumulate=len(cuts))
    assert a.loss == pytest.approx(b.loss, rel=1e-12)
    for p, q in zip(whole.parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)
    assert task.weight((inputs, targets)) == pytest.approx(sum(map(task.weight, parts)))


def test_losses_are_those_of_torch() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    logits, labels = net()(points()[0]), points()[1]
    ours = classify(0.1, tuple(weights.tolist())).loss_of(logits, labels)
    assert torch.equal(ours, F.cross_entropy(logits, labels, weights, label_smoothing=0.1))
    tokens, targets = text()
    expected = F.cross_entropy(reader()(tokens).transpose(1, 2), targets)
    torch.testing.assert_close(next_token().loss(reader(), (tokens, targets)), expected)


def test_a_step_without_any_target_is_refused() -> None:
    tokens, targets = text()
    nobody = [(tokens[:2], targets[:2].fill_(IGNORE))] * 2
    model = reader()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(ValueError, match="no target counts in step 0"):
        list(train(model, nobody, optimizer, task=next_token(), accumulate=2))
    with pytest.raises(ValueError, match="no target counts in step 0"):
        list(train(model, nobody, optimizer, task=next_token()))


def test_classification_scores_right_answers() -> None:
    logits = torch.eye(CLASSES)
    labels = torch.tensor([0, 1, 0, IGNORE])
    assert scores(nn.Identity(), [(logits, labels)]).tolist() == [1.0, 1.0, 0.0]
    assert evaluate(nn.Identity(), [(logits, labels)]) == pytest.approx(2 / 3)


def test_pixels_are_scored_as_the_share_of_an_image() -> None:
    logits = torch.zeros(2, 3, 3, 3)  # as many classes as rows: the wrong axis would go unseen
    logits[0, 1] = 1.0
    logits[1, 2] = 1.0
    labels = torch.ones(2, 3, 3, dtype=torch.long)
    labels[0, 0] = IGNORE
    assert scores(nn.Identity(), [(logits, labels)]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (torch.zeros(64, 3), torch.zeros(64, 1, dtype=torch.long)),
        (torch.zeros(8), torch.zeros(4, dtype=torch.long)),
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.long)),
    ],
)
def test_labels_that_would_broadcast_are_refused(logits: Tensor, labels: Tensor) -> None:
    with pytest.raises(ValueError, match="must answer with logits"):
        evaluate(nn.Identity(), [(logits, labels)])


def test_soft_targets_of_pixels_are_distilled_pixel_by_pixel() -> None:
    torch.manual_seed(0)
    logits, shares = torch.randn(2, 3, 4, 2), torch.rand(2, 3, 4, 2).softmax(1)
    task = distill(classify(), nn.Identity().eval(), share=1.0, temperature=1.0)
    entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(task.loss(nn.Identity(), (logits, shares)), entropy)
    assert classify().weight((logits, shares)) == 2 * 4 * 2


def test_an_empty_part_has_no_scores() -> None:
    for task, targets in ((classify(), torch.zeros(0)), (supervised(F.mse_loss), torch.zeros(0))):
        assert len(scores(nn.Identity(), [(torch.zeros(0, 3), targets.long())], task)) == 0


def test_texts_are_scored_by_their_own_mean_loss() -> None:
    model, (tokens, targets) = reader(), text()
    found = scores(model, [(tokens, targets)], next_token())
    alone = [
        F.cross_entropy(model(tokens[row : row + 1])[0], targets[row]).item()
        for row in (0, 1, 3, 4, 5)  # the third has nothing to say
    ]
    assert found.tolist() == pytest.approx(alone)
    assert next_token().metric is fill_masks().metric is LOSS


def test_distillation_is_hintons_formula() -> None:
    teacher, student, (inputs, _) = net(1).eval(), net(2), points()
    labels = torch.arange(6) % CLASSES
    t = 3.0
    soft = F.kl_div(
        F.log_softmax(student(inputs) / t, 1),
        F.softmax(teacher(inputs) / t, 1),
        reduction="batchmean",
    )
    task = distill(classify(), teacher, share=0.25, temperature=t)
    loss = task.loss(student, (inputs, labels))
    expected = 0.75 * F.cross_entropy(student(inputs), labels) + 0.25 * t**2 * soft
    ours, theirs = (torch.autograd.grad(x, student.parameters()) for x in (loss, expected))
    for a, b in zip(ours, theirs, strict=True):  # the losses differ by the teacher's entropy
        torch.testing.assert_close(a, b)
    assert torch.equal(
        distill(classify(), teacher, share=0.0).loss(student, (inputs, labels)),
        classify().loss(student, (inputs, labels)),
    )


def test_a_teacher_is_left_alone() -> None:
    torch.manual_seed(0)
    teacher = torchvision.models.mobilenet_v3_small(num_classes=4).eval()
    before = copy.deepcopy(teacher.state_dict())
    student = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    batches = [(torch.randn(4, 3, 32, 32), torch.arange(4))] * 2
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-3)
    first, second = train(student, batches, optimizer, task=distill(classify(), teacher))
    assert second.loss < first.loss
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


SGD_OF_NONE = torch.optim.SGD([torch.zeros(1)], lr=0.1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: classify(1.0), ValueError, "label_smoothing must lie in 0 … 1, got 1.0"),
        (
            lambda: classify(class_weights=(1.0, -1.0)),
            ValueError,
            "class_weights must be a tuple of",
        ),
        (lambda: distill(F.mse_loss, net().eval()), TypeError, "task must be of type Supervised"),
        (lambda: distill(classify(), F.relu), TypeError, "teacher must be of type Module"),
        (lambda: distill(classify(), net()), ValueError, r"teacher.eval\(\)"),
        (lambda: distill(classify(), net().eval(), share=2), ValueError, "share must lie in"),
        (lambda: distill(classify(), net().eval(), temperature=0), ValueError, "temperature"),
        (lambda: classify(class_weights=[1.0]), TypeError, "class_weights must be of type tuple"),
        (lambda: distill(supervised(F.mse_loss), net().eval()), TypeError, "answers with logits"),
        (lambda: train(net(), [], SGD_OF_NONE, task=classify), TypeError, "task must be a task"),
        (lambda: scores(net(), []), ValueError, "batches is empty"),
        (lambda: scores(net(), [torch.zeros(2, 5)]), TypeError, "pair of tensors"),
        (
            lambda: train(net(), [], SGD_OF_NONE, task=F.relu),
            TypeError,
            "task must be of type Task",
        ),
    ],
)
def test_refuses(make, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
