"""What the notebooks share, and the checks of their exercises (one module a notebook)."""

from labkit.lessons.check import Feedback, exercise
from labkit.lessons.lesson import Lesson, Prediction, open_lesson, predict
from labkit.lessons.prose import Prose

__all__ = ["Feedback", "Lesson", "Prediction", "Prose", "exercise", "open_lesson", "predict"]
