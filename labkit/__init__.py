"""labkit: efficient model training, measured on your machine.

What is public stands here, on one screen. Widgets live in `labkit.widgets` and are imported by
those who want them, so that `import labkit` stays cheap.
"""

from labkit.hints import check_package

check_package(__name__)  # before what it checks is imported

from labkit import data, models
from labkit.compare import Race
from labkit.facts import machine_facts, threads
from labkit.seeds import seed_everything
from labkit.training import SGD, AdamW, Recipe, checkpoint, cosine, evaluate, one_cycle, train

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "AdamW",
    "Race",
    "Recipe",
    "checkpoint",
    "cosine",
    "data",
    "evaluate",
    "machine_facts",
    "models",
    "one_cycle",
    "seed_everything",
    "threads",
    "train",
]
