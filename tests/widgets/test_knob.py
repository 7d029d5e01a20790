"""The knob: what it measures, what it shows, and what it refuses."""

from __future__ import annotations

import base64
import math
import threading
import time
from typing import Any

import pytest
from matplotlib.figure import Figure

from labkit.widgets import Choice, Knob, Slider, figure, knob


def spacing(bits: int = 5, kind: str = "fp16") -> tuple[Figure, str]:
    if bits == 8:
        raise OverflowError("eight is too many")
    return figure(2 + bits / 10, 1), f"{kind} with {bits} bits"


def move(made: Knob, turn: int = 1, **values: Any) -> None:
    """What the browser sends when a control was moved; returns when it is answered."""
    made._handle_custom_msg({"kind": "values", "turn": turn, "values": values}, [])
    deadline = time.monotonic() + 30
    while made._working:
        assert time.monotonic() < deadline, "the measurement never ended"
        time.sleep(0.005)


@pytest.fixture
def made() -> Knob:
    return knob(spacing, bits=Slider(2, 8, label="exponent", unit="bits"), kind=["fp16", "bf16"])


def test_it_starts_at_the_functions_own_defaults_and_shows_at_once(made: Knob) -> None:
    assert made.values == {"bits": 5, "kind": "fp16"}
    data, metadata = made._repr_mimebundle_()
    assert data["text/plain"] == ("Figure for exponent 5 bits, kind fp16. fp16 with 5 bits")
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == made.model_id
    assert metadata["image/png"]["alt"] == data["text/plain"]
    assert knob(lambda width: figure(), width=(8, 64, 8)).values == {"width": 8}


def test_moving_it_measures_again(made: Knob, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(
        Knob, "send", lambda _self, content, buffers: sent.append((content, buffers))
    )
    before = made.png
    move(made, bits=7, kind="bf16")
    ((content, (png,)),) = sent
    assert png == made.png != before
    assert content["shown"]["text"] == "bf16 with 7 bits" and content["shown"]["turn"] == 1
    assert content["shown"]["alt"] == "Figure for exponent 7 bits, kind bf16. bf16 with 7 bits"
    assert made.get_state()["shown"] == content["shown"]  # what a page that is loaded again gets


def test_only_the_newest_position_waits() -> None:
    seen, hold = [], threading.Event()

    def slow(width: int = 1) -> Figure:
        seen.append(width)
        if width == 2:
            hold.wait(30)
        return figure(2, 1)

    made = knob(slow, width=(1, 9))
    for turn, width in enumerate(range(2, 9)):
        made._handle_custom_msg({"kind": "values", "turn": turn, "values": {"width": width}}, [])
        while len(seen) < 2:
            time.sleep(0.005)
    hold.set()
    move(made, turn=8, width=9)
    assert seen[:2] == [1, 2] and seen[-1] == 9 and len(seen) <= 4


def test_errors_are_shown_and_the_next_move_works(made: Knob) -> None:
    before = made.png
    move(made, bits=8, kind="fp16")
    assert made.shown["error"] == "OverflowError: eight is too many"
    assert made.png == before
    move(made, bits=3, kind="nonsense")
    assert made.shown["error"].startswith("ValueError: no option 'nonsense'")
    move(made, bits=3, kind="fp16")
    assert (made.shown["error"], made.shown["text"]) == ("", "fp16 with 3 bits")


def test_values_from_outside_are_brought_to_allowed_ones() -> None:
    assert [Slider(2, 8, 2).clean(v) for v in (-5, 2.9, 3.1, 99)] == [2, 2, 4, 8]
    assert isinstance(Slider(2, 8, 2).clean(4.0), int)
    assert Slider(0.1, 0.5, 0.1).clean(0.30000000000000004) == 0.3
    assert Slider(0.0, 0.3, 0.3).clean(1) == 0.3
    assert Slider(1e-15, 1e-13, 1e-15).clean(5.2e-14) == 5.2e-14
    assert Choice([1, 2]).clean("2") == 2
    for bad in ("fast", None, float("nan")):
        with pytest.raises(ValueError, match="a slider needs a number"):
            Slider(1, 2).clean(bad)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: knob(spacing), TypeError, "at least one control"),
        (lambda: knob(spacing, size=(1, 3)), TypeError, "does not fit the controls size"),
        (lambda: knob(spacing, bits="5"), TypeError, "control 'bits' must be"),
        (lambda: knob(spacing, bits=(5, 1)), ValueError, "low must be below high, got 5 and 1"),
        (lambda: knob(spacing, bits=(1, 5, 0)), ValueError, "step must be above 0, got 0"),
        (lambda: knob(spacing, kind=["fp16"]), ValueError, "two or more different options"),
        (lambda: knob(spacing, kind=["a", "a"]), ValueError, "two or more different options"),
        (lambda: knob(lambda bits: "figure", bits=(1, 5)), TypeError, "fig must be of type Figure"),
        (lambda: knob(lambda bits: spacing(bits), bits=(8, 9)), OverflowError, "eight is too many"),
        (lambda: knob(lambda a: (figure(), None), a=(0, 1)), TypeError, "got the text None"),
        (lambda: knob(lambda a: (figure(),), a=(0, 1)), TypeError, "fig must be of type Figure"),
        (
            lambda: knob(lambda a: (figure(), "a", "b"), a=(0, 1)),
            TypeError,
            "fig must be of type Figure",
        ),
        (lambda: knob(lambda a=7: figure(), a=(0, 5)), ValueError, "default of a, 7, must lie"),
        (lambda: Slider(0, math.inf), ValueError, "ends must be finite"),
        (lambda: Slider(-math.inf, 0), ValueError, "ends must be finite"),
        (lambda: Slider(0, math.nan), ValueError, "low must be below high"),
        (lambda: Slider(0, 1, math.nan), ValueError, "step must be above 0"),
        (lambda: Slider(0, 1, math.inf), ValueError, "a step apart or more"),
        (lambda: Slider(0, 0.5), ValueError, "a step apart or more"),
        (lambda: Choice("fp32"), ValueError, "options must be a list"),
    ],
)
def test_bad_input_is_refused_when_it_is_made(
    call: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


def test_its_text_holds_no_address(made: Knob) -> None:
    assert repr(made) == "Knob()"
