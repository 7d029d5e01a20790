"""Notebook 11: the checks of its exercises."""

from math import log2

from labkit.lessons.check import exercise, real, wrong_number
from labkit.plan.efficiency import StepCost
from labkit.plan.messages import ring_bytes

ENOUGH = 0.9
"""Of the ceiling: what two processes should reach."""


@exercise(
    hint="The joined batch has 4 samples. Add up their gradients and divide by 4.",
    praise="Each rank weighs as much as it has samples. DistributedDataParallel gives all ranks "
    "the same weight, so parts must be equal, or the losses scaled: `joined_mean` does that.",
)
def uneven_mean(answer: object) -> str | None:
    """Check the joined mean of 3 samples with mean gradient 1 and one with 5."""
    mean = "That is the mean of the two means: the single sample would weigh as much as three."
    return wrong_number(answer, 2, 1e-9, "Weigh each rank by its number of samples.", {3: mean})


@exercise(
    hint="4 bytes a parameter. In a ring of n ranks each sends 2 (n - 1) / n times the tensor.",
    praise="Whatever the number of ranks, each sends less than twice the gradient a step.",
)
def resnet_bytes(answer: object) -> str | None:
    """Check the bytes that each of 8 ranks sends a step for 11,689,512 parameters in fp32."""
    size = 4 * 11_689_512
    mistakes = {
        size: "That is the gradient's size, once.",
        2 * size: "Nearly: how many of the 8 chunks does a rank send each time round?",
        7 * size: "That is what it takes to send it to each of the 7 others: the ring does better.",
        ring_bytes(size, 8) / 1e6: "Count in bytes, not in megabytes.",
    }
    too_far = "How many chunks does a rank send, and how large are they?"
    return wrong_number(answer, ring_bytes(size, 8), 1e-3, too_far, mistakes)


@exercise(
    hint="`cost.efficiency(batch, ranks)` is the share of computing. Try 1, 2, 4, 8, …",
    praise="At half that batch, by this model, more than a tenth of a step goes to sending.",
)
def smallest_batch(answer: object, cost: StepCost) -> str | None:
    """Check the smallest power of two a rank at which 8 ranks compute 90 % of the time."""
    right, batch = cost.smallest_batch(ENOUGH, 8), real(answer)
    problem = wrong_number(answer, right, 0, "There the share is still below 90 %.")
    if problem is None or batch is None or not 1 <= batch < 2**60:
        return problem
    if cost.efficiency(batch, 8) < ENOUGH:
        return problem
    if batch == cost.smallest_batch(ENOUGH, 64):
        return f"{batch:g} is for 64 ranks."
    if log2(batch) % 1:
        return f"{batch:g} is no power of two."
    return f"{batch:g} does it, but a smaller power of two does, too."
