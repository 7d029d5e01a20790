"""Notebook 15, second half: transformer, weight-only, training with rounding, the choice."""

from collections.abc import Mapping
from math import isinf

from labkit.compare import LATENCY, Quantity, Tradeoff, Verdict
from labkit.lessons.lesson import Prediction
from labkit.lessons.prose import Prose
from labkit.lessons.quantization.measure import Quality
from labkit.lessons.tradeoffs import ALLOWED
from labkit.measure import Estimate, Timing, paired_ratio
from labkit.table import Table

Times = Mapping[str, Timing]


def lost_words(quality: Quality) -> str:
    """Return what a model lost against the first one, and whether that is sure."""
    lost = quality.lost
    if lost.low > 0:
        return f"loses {lost:.2f} points"
    if lost.high < 0:
        return f"gains {Estimate(-lost.value, -lost.high, -lost.low, lost.n):.2f} points"
    return f"loses nothing that can be shown ({lost:.2f} points)"


def speed_over_first(times: Times, name: str) -> Estimate:
    """Return how many times faster a model is than the first one."""
    first = next(iter(times))
    return paired_ratio(times[first].seconds, times[name].seconds)


def _speed_cell(times: Times, name: str) -> str:
    return "1 (baseline)" if name == next(iter(times)) else f"{speed_over_first(times, name):.2fx}"


def language_table(losses: Mapping[int, Mapping[str, float]], times: Mapping[int, Times]) -> Table:
    """Return next-token loss and speed of each variant: {width: {variant: …}}."""
    rows = [
        (str(width), name, f"{loss:.4f}", _speed_cell(times[width], name))
        for width, of_width in losses.items()
        for name, loss in of_width.items()
    ]
    head = ("width", "linear layers", "next-token loss (nats)", "speed over fp32")
    return Table(head, tuple(rows), "In brackets: 95 % intervals.")


def read_language(losses: Mapping[int, Mapping[str, float]], times: Mapping[int, Times]) -> Prose:
    """Return at which widths which way pays, and what it does to the loss."""
    widths = list(losses)
    first, *names = losses[widths[0]]
    lines = []
    for name in names:
        calls = {
            width: Verdict(
                name, first, Quantity.time("time"), speed_over_first(times[width], name)
            ).call
            for width in widths
        }
        moved = max(abs(losses[width][name] - losses[width][first]) for width in widths)
        lines.append(f"- **{name}**: {_pays(calls)}; the loss moves by {moved:.4f} nats at most.")
    slower = [name for name in names if "eager" in name and _never(times, name)]
    if slower:
        lines.append(
            "\n`quantize_` is meant for GPUs and for `torch.compile`. Eagerly, each rounding is a "
            "pass over the tensor of its own, and that is dearer than the products it saves."
        )
    return Prose("\n".join(lines))


def _pays(calls: Mapping[int, str]) -> str:
    """Say where a variant is faster: {width: "better", "worse" or "can't tell"}."""
    better = [str(width) for width, call in calls.items() if call == "better"]
    worse = [str(width) for width, call in calls.items() if call == "worse"]
    if len(better) == len(calls):
        return "faster at every width"
    if better:
        return f"faster at width {' and '.join(better)} only"
    if len(worse) == len(calls):
        return "slower at every width here"
    return "not shown to be faster at any width"


def _never(times: Mapping[int, Times], name: str) -> bool:
    return all(speed_over_first(of_width, name).high < 1 for of_width in times.values())


def weights_table(
    predicted: Mapping[str, int],
    stored: Mapping[str, int],
    qualities: Mapping[str, Quality],
    times: Times,
) -> Table:
    """Return bytes as predicted and stored, error, accuracy and speed; the first row is fp32."""
    rows = []
    for name, quality in qualities.items():
        guessed = f"{predicted[name] / 1e3:,.0f}" if name in predicted else ""
        sizes = (guessed, f"{stored[name] / 1e3:,.0f}")
        known = (f"{quality.error:.1f} %", f"{quality.accuracy:.2f} %")
        rows.append((name, *sizes, *known, _speed_cell(times, name)))
    head = (
        "weights",
        "kB of tensors predicted",
        "kB stored",
        "distance of the logits",
        "correct",
        "speed",
    )
    return Table(head, tuple(rows))


def read_weights(
    stored: Mapping[str, int], qualities: Mapping[str, Quality], times: Times
) -> Prose:
    """Return what weight-only quantization saves and costs; the first entry is fp32."""
    whole, *names = stored
    smallest = min(names, key=lambda name: stored[name])
    speeds = {name: speed_over_first(times, name) for name in names}
    faster = [name for name in names if speeds[name].low > 1.02]
    lines = [
        f"**{smallest}** is the smallest, {stored[whole] / stored[smallest]:.1f} times smaller "
        f"than fp32, and {lost_words(qualities[smallest])}."
    ]
    if any(isinf(speed.high) for speed in speeds.values()):
        lines.append("Measured too few times to call any of them faster or slower.")
    elif faster:
        lines.append(f"Faster here: {', '.join(faster)}, although the products are those of fp32.")
    else:
        lines.append(
            "**None is faster:** each forward pass makes floats of the integers first, and then "
            "multiplies as before. A kernel that unpacks while it multiplies pays where reading "
            "weights is the limit, as when a large language model writes one token at a time."
        )
    return Prose(" ".join(lines))


def bits_table(qualities: Mapping[int, Quality]) -> Table:
    """Return accuracy and points lost for each number of bits."""
    rows = tuple(
        (str(bits), f"{q.accuracy:.2f} %", f"{q.lost:.2f}" if number else "", f"{q.error:.1f} %")
        for number, (bits, q) in enumerate(qualities.items())
    )
    return Table(("bits a weight", "correct", "points lost", "distance of the logits"), rows)


def read_bits(qualities: Mapping[int, Quality]) -> Prose:
    """Return down to how many bits rounding alone goes, and where it fails."""
    broken = {bits: q for bits, q in qualities.items() if q.lost.low > ALLOWED}
    if not broken:
        return Prose(
            f"No number of bits loses more than {ALLOWED:g} points for sure on so few test images: "
            "run a longer profile."
        )
    first = max(broken)
    lines = [f"At **{first} bits** rounding {lost_words(broken[first])}"]
    if min(broken) < first:
        lines.append(f", at {min(broken)} bits {broken[min(broken)].lost.value:.0f}")
    lines.append(". The network never met such weights: it was trained with others.")
    return Prose("".join(lines))


def read_aware(before: Quality, control: Quality, after: Quality, guess: Prediction) -> Prose:
    """Return how much of what rounding lost training with rounding brings back.

    Args:
        before: the trained model, rounded.
        control: the same further training in float, then rounded.
        after: the same further training with rounded weights.
        guess: of the percentage brought back.
    """
    if before.lost.low <= 0:
        return Prose("Rounding alone lost nothing for sure here: there is nothing to bring back.")
    back = recovered(before, after)
    words = f"**brings back {back.value:.0f} %**" if back.value > 0 else "**brings nothing back**"
    lines = [
        f"Rounding alone {lost_words(before)}. Training with rounded weights {words}: it "
        f"{lost_words(after)}."
    ]
    instead = f"The same steps in float, rounded afterwards: {control.lost.value:.1f} points lost."
    if control.lost.low > after.lost.high:
        instead += " So it is not the further training that helps, but meeting the rounding in it."
    elif control.lost.high < after.lost.low:
        instead += " So here training on in float is the better half of it."
    else:
        instead += " The intervals overlap, so these two can't be told apart here."
    return Prose("\n\n".join([*lines, instead, str(guess.against(back))]))


def recovered(before: Quality, after: Quality) -> Estimate:
    """Return the percentage of the lost points that came back; its interval is that of `after`."""
    value, low, high = (
        100 * (1 - lost / before.lost.value)
        for lost in (after.lost.value, after.lost.high, after.lost.low)
    )
    return Estimate(value, low, high, after.lost.n)


def choice_table(tradeoff: Tradeoff) -> Table:
    """Return which variant answers which need here, by point estimates."""
    samples, known = tradeoff.samples, {}
    for name in tradeoff.variants:
        latency, quality = samples.value(name, LATENCY), samples.value(name, tradeoff.metric)
        gained, size = samples.against(name, on=tradeoff.metric), samples.value(name, "size")
        if latency and quality and gained and size:
            known[name] = (latency.value, quality.value, -gained.value, size.value)
    head = ("you need", "take here", "it has")
    if not known:
        return Table(head, ())
    little = [name for name, (_, _, lost, _) in known.items() if lost <= ALLOWED]
    needs = {
        "every point of accuracy": max(known, key=lambda n: (known[n][1], -known[n][0])),
        f"least time, {ALLOWED:g} points to spare": min(little, key=lambda name: known[name][0]),
        "least time": min(known, key=lambda name: known[name][0]),
        f"smallest file, {ALLOWED:g} points to spare": min(little, key=lambda name: known[name][3]),
        "smallest file": min(known, key=lambda name: known[name][3]),
    }
    for need in ("least time", "smallest file"):
        if needs[need] == needs[f"{need}, {ALLOWED:g} points to spare"]:
            del needs[f"{need}, {ALLOWED:g} points to spare"]
    rows = []
    for name in dict.fromkeys(needs.values()):
        time, accuracy, _, megabytes = known[name]
        figures = f"{accuracy:.1f} %, {time:.3g} ms a batch, {1e3 * megabytes:,.0f} kB"
        wanted = "; ".join(need for need, taken in needs.items() if taken == name)
        rows.append((wanted, name, figures))
    return Table(head, tuple(rows), "By point estimates: look at the intervals, too.")
