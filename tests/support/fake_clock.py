"""A clock for tests of what is timed."""


class FakeClock:
    """Seconds that pass only when somebody looks or sleeps."""

    def __init__(self, tick: float = 0.0) -> None:
        self.now, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
