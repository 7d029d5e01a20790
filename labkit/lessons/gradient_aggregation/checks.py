"""The exercises of notebook 12."""

from labkit.distributed.collectives.compress import low_rank_numbers
from labkit.lessons.check import exercise, wrong_number
from labkit.plan.messages import MessageCost, ring_bytes

RESNET18_BYTES = 46_758_048  # its gradient in fp32: 11,689,512 parameters of torchvision's
NORMS_OF_RESNET18 = 20


@exercise(
    hint="In each of the 2 (n - 1) steps a rank sends one of n chunks; a number has 4 bytes.",
    praise="One and a half times the gradient; with more ranks it nears twice, never more.",
)
def resnet_megabytes(answer: object) -> str | None:
    """Check the megabytes that each of 4 ranks sends for a gradient of ResNet-18."""
    right = ring_bytes(RESNET18_BYTES, 4) / 1e6
    mistakes = {
        right / 4: "That many million numbers: each takes 4 bytes.",
        1e6 * right: "Those are bytes; megabytes are wanted.",
        4 * right: "That is what all ranks send together.",
        right / 2: "That is the first half of the ring; then the sums go round.",
        1e6 / 2**20 * right: "Those are MiB; a megabyte is 10⁶ bytes.",
    }
    too_far = "How many chunks does a rank send, and how large?"
    return wrong_number(answer, right, 0.005, too_far, mistakes)


@exercise(
    hint="Latency = bytes x seconds per byte. `cost.latency` and `cost.per_byte` are in seconds.",
    praise="Buckets far above that waste little on latency; those far below do nothing else.",
)
def break_even_kib(answer: object, cost: MessageCost) -> str | None:
    """Check the size in KiB of the message whose latency is as long as its transfer."""
    right = cost.break_even / 1024
    mistakes = {
        1024 * right: "Those are bytes; KiB are wanted.",
        1 / right: "Upside down: a longer latency needs a larger message.",
    }
    too_far = "Set the two terms of the formula equal."
    return wrong_number(answer, right, 0.005, too_far, mistakes)


@exercise(
    hint="Unfold the tensor to 64 rows. How many numbers do P (64 x r) and Q (columns x r) have?",
    praise="And bf16 makes it twice as much again.",
)
def low_rank_ratio(answer: object) -> str | None:
    """Check how many times fewer numbers rank 2 sends for a 3x3 convolution from 32 to 64."""
    numbers = 64 * 32 * 3 * 3
    right = numbers / low_rank_numbers((64, 32, 3, 3), 2)
    mistakes = {
        1 / right: "Upside down: how many times fewer?",
        2 * right: "That is rank 1.",
        numbers / right: "So many numbers travel. How many times fewer is that?",
    }
    return wrong_number(answer, right, 0.01, "The matrix is 64 x (32 x 3 x 3).", mistakes)


@exercise(
    hint="One exchange forward and one backward, for each norm.",
    praise="Each costs a latency and a wait for the slowest rank, however few its bytes.",
)
def exchanges(answer: object) -> str | None:
    """Check how many exchanges the norms of ResNet-18 make in a training step."""
    once = {NORMS_OF_RESNET18: "So many in the forward pass alone."}
    too_far = "ResNet-18 has 20 batch norms."
    return wrong_number(answer, 2 * NORMS_OF_RESNET18, 0, too_far, once)
