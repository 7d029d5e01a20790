"""Errors of arguments: each names the argument, what came, and what would be right."""


def check_positive_int(name: str, value: object) -> None:
    """Raise a ValueError that names the argument unless `value` is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
