"""The exercises of notebook 01."""

from collections.abc import Collection, Mapping
from itertools import pairwise

from labkit.lessons.check import exercise, wrong_number

LINES = ("zero_grad", "forward", "loss", "backward", "step")


@exercise(
    hint="The loss needs the outputs, the gradient needs the loss, the step needs the gradient. "
    "And where may the old gradient be thrown away?",
    praise="zero_grad may stand anywhere but between backward and step: there it would throw "
    "away the gradient that the step needs.",
)
def step_order(answer: object) -> str | None:
    """Check the order of a step's five lines; every order that trains is right."""
    if not isinstance(answer, list | tuple) or len(answer) != len(LINES):
        return f"A list of the {len(LINES)} names is wanted."
    names = [name for name in answer if isinstance(name, str)]
    for name in LINES:
        if names.count(name) != 1:
            return f"{name!r} must be there once."
    at = {name: names.index(name) for name in LINES}
    if at["backward"] < at["zero_grad"] < at["step"]:
        return "zero_grad would throw away the gradient before the step has used it."
    for earlier, later in pairwise(LINES[1:]):
        if at[earlier] > at[later]:
            return f"{later!r} needs what {earlier!r} gives."
    return None


@exercise(
    hint="backward adds to `.grad`. It does not replace what is there.",
    praise="Gradients add up until zero_grad: forgotten, it is a bug; wanted, it is gradient "
    "accumulation.",
)
def summed_gradient(answer: object) -> str | None:
    """Check how many times too large a gradient is after five passes without zero_grad."""
    doubles = "It does not double with each pass: the same gradient is added each time."
    doubled = dict.fromkeys((16, 32), doubles)
    too_far = "Each of the five passes adds the same gradient."
    return wrong_number(answer, 5, 1e-3, too_far, doubled)


@exercise(
    hint='What is left of a step of length 1 without that part is 1 - shares["backward"].',
    praise="That is the ceiling for anything that makes the backward pass cheaper.",
)
def amdahl(answer: object, measured: Mapping[str, float]) -> str | None:
    """Check how many times faster the step is when the backward pass takes no time."""
    share = measured["backward"]
    other = {1 / share: "That is 1 / share: how much faster if only the backward pass were left."}
    too_far = "Compare the whole step with what is left of it."
    return wrong_number(answer, 1 / (1 - share), 0.02, too_far, other)


NEEDED = {
    "weights": "Without the weights there is nothing to go on with.",
    "momentum": "The optimizer's next step depends on its earlier ones.",
    "step number": "The learning rate is a function of the number of steps done.",
    "random generators": "Dropout and augmentation draw random numbers.",
    "place in the data": "Else some images come twice in an epoch, others never.",
}


NOT_NEEDED = {
    "activations": "The next forward pass makes the activations anew.",
    "gradients": "Between two steps the gradients are used up: zero_grad throws them away.",
    "test accuracy": "No step depends on the test accuracy.",
}


@exercise(
    hint="After a step is done, which of these does the next step depend on?",
    praise="All that the next step depends on, and nothing else.",
)
def checkpoint_parts(answer: object) -> str | None:
    """Check the names of what a checkpoint must hold."""
    if isinstance(answer, str) or not isinstance(answer, Collection):
        return 'A set of names is wanted, such as {"weights", "gradients"}.'
    names = [name.strip().lower() if isinstance(name, str) else name for name in answer]
    for name in names:
        if not isinstance(name, str) or name not in NEEDED | NOT_NEEDED:
            return f"{name!r} is none of {', '.join(NEEDED | NOT_NEEDED)}."
        if name in NOT_NEEDED:
            return NOT_NEEDED[name]
    missing = [reason for name, reason in NEEDED.items() if name not in names]
    return f"{len(missing)} missing. {missing[0]}" if missing else None
