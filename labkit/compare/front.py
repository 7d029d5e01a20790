"""The front: who is beaten by nobody in both of two figures. Named after Pareto."""

import math
from collections.abc import Mapping


def unbeaten(
    places: Mapping[str, tuple[float, float]], *, higher_is_better: bool = True
) -> tuple[str, ...]:
    """Return the names, the cheapest first, of {name: (cost, worth)} that no other beats.

    One beats another if it is as good in both and better in one; two alike do not beat each other.

    Args:
        places: of `cost` less is better.
        higher_is_better: of `worth`: True for an accuracy, False for a loss.
    """
    sign = 1 if higher_is_better else -1
    turned = {name: (cost, sign * worth) for name, (cost, worth) in places.items()}
    names: list[str] = []
    best = (math.inf, -math.inf)  # of the names so far: cost and worth of the worthiest
    for name, place in sorted(turned.items(), key=lambda item: (item[1][0], -item[1][1])):
        if place[1] > best[1] or place == best:
            names.append(name)
            best = place
    return tuple(names)
