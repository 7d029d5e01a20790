"""A knob: turn it and a small measurement runs again.

Reading that a smaller exponent loses small gradients is one thing, moving the exponent and seeing
them go is another. The measurement runs in a thread, so that the kernel goes on listening; while
one runs, only the newest position waits, because a slider that is drawn from end to end would
otherwise queue up twenty. The picture for the first position is stored in the notebook and shows
where no kernel runs.
"""

import inspect
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

import traitlets
from matplotlib.figure import Figure

from labkit.facts import threads
from labkit.widgets.controls import Control, Slider, as_control
from labkit.widgets.quiet_widget import QuietWidget, source
from labkit.widgets.style import Picture, picture

Measurement: TypeAlias = Callable[..., Figure | tuple[Figure, str]]


def knob(function: Measurement, **controls: object) -> "Knob":
    """Return a widget that calls `function` with the values of its controls and shows the result.

        knob(spacing, bits=Slider(2, 8, label="exponent", unit="bits"), format=["fp16", "bf16"])

    Args:
        function: takes the controls' names as keywords; returns a Figure, or a Figure and one
            sentence that says what it shows. A default of its own is where a control starts.
        controls: (low, high, step) or a Slider; a list of options or a Choice.

    Raises:
        TypeError: no controls, one that is neither, or arguments that `function` does not take;
            or what `function` returns is neither a Figure nor a Figure and a text.
        ValueError: a default of `function` lies outside of its control.
        Exception: what `function` raises at the first position.
    """
    if not controls:
        raise TypeError("knob() needs at least one control, such as width=(8, 64, 8)")
    made = {name: as_control(name, given) for name, given in controls.items()}
    try:
        inspect.signature(function).bind(**made)
    except TypeError as error:
        raise TypeError(f"function does not fit the controls {', '.join(made)}: {error}") from None
    return Knob(function, made)


class Knob(QuietWidget):
    """The widget that `knob` returns. Attribute `values` holds {name: value} of the controls."""

    _esm = source("look.js", "knob.js")
    _css = source("look.css", "knob.css")
    controls: "traitlets.List[Any]" = traitlets.List().tag(sync=True)
    shown: "traitlets.Dict[str, Any]" = traitlets.Dict().tag(sync=True)
    png = traitlets.Bytes().tag(sync=True)

    def __init__(self, function: Measurement, controls: dict[str, Control]) -> None:
        self._function, self._controls = function, controls
        self._lock = threading.Lock()
        self._waiting: tuple[int, dict[str, Any]] | None = None
        self._working = False
        self.values = {name: self._start(name) for name in controls}
        with threads(1):
            self.picture, text = self._measure()
        super().__init__(
            controls=[control.describe(name) for name, control in controls.items()],
            shown=self._as_shown(text, turn=0),
            png=self.picture.png,
        )

    def _start(self, name: str) -> Any:
        control = self._controls[name]
        parameter = inspect.signature(self._function).parameters.get(name)
        if parameter is None or parameter.default is inspect.Parameter.empty:
            return control.first
        start, given = control.clean(parameter.default), parameter.default
        if isinstance(control, Slider) and given not in (start, control.within(given)):
            raise ValueError(
                f"the default of {name}, {given}, must lie on its slider, from "
                f"{control.low} to {control.high}"
            )
        return start

    def _measure(self) -> tuple[Picture, str]:
        """Call the function with the values as they are; return its picture and its sentence."""
        result = self._function(**self.values)
        fig, text = result if isinstance(result, tuple) and len(result) == 2 else (result, "")
        if not isinstance(text, str):
            raise TypeError(f"function must return a Figure and a text, got the text {text!r}")
        settings = ", ".join(
            f"{control.describe(name)['label']} {control.show(self.values[name])}"
            for name, control in self._controls.items()
        )
        return picture(fig, alt=f"Figure for {settings}. {text}".strip()), text

    def _as_shown(self, text: str, turn: int, error: str = "") -> dict[str, Any]:
        values = {n: v if isinstance(v, int | float) else str(v) for n, v in self.values.items()}
        alt = self.picture.alt
        return {"values": values, "text": text, "alt": alt, "error": error, "turn": turn}

    def receive(self, message: dict[str, Any]) -> None:
        """Take in new positions from the browser; measure unless a measurement is under way."""
        with self._lock:
            self._waiting = (int(message["turn"]), dict(message["values"]))
            if self._working:
                return
            self._working = True
        threading.Thread(target=self._work, name="labkit-knob", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                waiting, self._waiting = self._waiting, None
                if waiting is None:
                    self._working = False
                    return
            self._turn(*waiting)

    def _turn(self, turn: int, wanted: dict[str, Any]) -> None:
        text = error = ""
        try:
            self.values = {n: c.clean(wanted.get(n)) for n, c in self._controls.items()}
            with threads(1):
                self.picture, text = self._measure()
        except Exception as problem:  # shown in the widget: there is no cell to raise it in
            error = f"{type(problem).__name__}: {problem}"
        self.remember(shown=self._as_shown(text, turn, error), png=self.picture.png)
        self.send({"kind": "shown", "shown": self.shown}, buffers=[self.picture.png])

    def _repr_mimebundle_(self, **_options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = self.picture.bundle()
        return {**self.view_bundle, **data}, metadata
