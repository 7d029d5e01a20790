"""What the notebooks share, and the checks of their exercises (one module a notebook)."""

from labkit.lessons.check import Feedback, exercise
from labkit.lessons.lesson import Lesson, Prediction, open_lesson, predict
from labkit.lessons.prose import Prose
from labkit.lessons.reading import Sentences, read, read_all, sentence

__all__ = [
    "Feedback",
    "Lesson",
    "Prediction",
    "Prose",
    "Sentences",
    "exercise",
    "open_lesson",
    "predict",
    "read",
    "read_all",
    "sentence",
]
