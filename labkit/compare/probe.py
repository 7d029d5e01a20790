"""A look ahead: what one step of a recipe costs here, before the race begins."""

from dataclasses import dataclass
from time import perf_counter

from labkit.measure import peak_memory
from labkit.training import Recipe

STEPS = 4


@dataclass(frozen=True)
class Probe:
    """Seconds of a step and of an evaluation, steps of a training, peak bytes of a step."""

    step_seconds: float
    evaluation_seconds: float
    steps: int
    peak_bytes: int

    def total_seconds(self, evaluations: int) -> float:
        """Return the seconds of one training with so many evaluations."""
        return self.steps * self.step_seconds + evaluations * self.evaluation_seconds


def probe(recipe: Recipe) -> Probe:
    """Return what a step of `recipe` costs, measured on a throw-away model.

    The peak counts what torch allocates during a step, above weights, optimizer and data.
    """
    training = recipe.training(timed=True)
    steps = iter(training)
    count = min(STEPS, len(training) - 1)
    seconds = [next(steps).seconds for _ in range(count)] or [0.0]
    training.optimizer.zero_grad()  # so that the old gradients do not make room for the new
    peak = peak_memory(lambda: next(steps), device=training.device)
    data = recipe.test_batches()
    inputs, _ = next(iter(data))
    training.model.eval()
    began = perf_counter()
    training.model(inputs)
    return Probe(
        step_seconds=min(seconds),
        evaluation_seconds=(perf_counter() - began) * len(data),
        steps=len(training),
        peak_bytes=peak,
    )
