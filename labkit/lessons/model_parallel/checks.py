"""The exercises of notebook 13."""

from labkit.lessons.check import exercise, real, wrong_number
from labkit.plan.memory import zero_bytes
from labkit.plan.pipeline_schedules import bubble


@exercise(
    hint="In fp32: 4 bytes for a weight, 4 for its gradient, and AdamW keeps two more numbers.",
    praise="And not one activation is counted yet. Most devices have less, so it must be spread.",
)
def gigabytes_of_seven_billion(answer: object) -> str | None:
    """Check the GB of states of 7 billion parameters in fp32 with AdamW."""
    mistakes = {112e9: "Those are bytes.", 112e9 / 2**30: "Those are GiB; a GB is 10⁹ bytes."}
    too_far = "Count weight, gradient and both moments; GB are 10⁹."
    return wrong_number(answer, 112, 0.001, too_far, mistakes)


@exercise(
    hint="Solve (p - 1) / (m + p - 1) ≤ 0.1 for m, with p = 4; or try with `bubble(4, m)`.",
    praise="Nine times (p - 1), by the formula. Whether so many small pieces are faster, the clock "
    "says below.",
)
def fewest_microbatches(answer: object) -> str | None:
    """Check the fewest microbatches with at most 10 % bubble in four stages."""
    right = next(m for m in range(1, 100) if bubble(4, m) <= 0.1)
    problem, number = wrong_number(answer, right, 0, "Look at the bubble again."), real(answer)
    if problem is None or number is None or number % 1 or not 1 <= number <= 1e9:
        return problem
    share = f"{number:,.0f} microbatches leave a bubble of {bubble(4, int(number)):.1%}"
    return f"{share}. {'Fewer would do.' if number > right else 'More are needed.'}"


@exercise(
    hint="`zero_bytes(10**9, 8, stage).total / 1e9` for stages 0 to 3; which is the first below 6?",
    praise="Stage 3 would fit, too, but it sends half as much again.",
)
def lowest_stage(answer: object) -> str | None:
    """Check the lowest stage of ZeRO that fits a billion parameters into 8 devices of 6 GB."""
    number = real(answer)
    if number is None:
        return f"A number from 0 to 3 is wanted here, not {answer!r}."
    if number not in range(4):
        return "ZeRO has the stages 1, 2 and 3; 0 is plain data parallel."
    stage = int(number)
    need = {s: zero_bytes(10**9, 8, s).total / 1e9 for s in range(4)}
    right = next(s for s in range(4) if need[s] <= 6)
    if stage < right:
        return f"Stage {stage} needs {need[stage]:.1f} GB a device, and there are 6."
    return None if stage == right else f"Stage {stage} fits, but so does a lower one."
