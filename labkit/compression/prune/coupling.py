"""Which channels stand or fall together: a union-find over channels.

Two channels that are added to each other can only be removed together, and so can all that are
added to one of those. Such a set is a *unit*: the smallest thing that structured pruning removes.
Joining sets over and over, and asking for a channel's set, is what union-find does in almost no
time (Tarjan 1975).

A unit can be frozen: something reads it that must not change, such as the model's output.
"""

from collections.abc import Iterable, Sequence


class Coupling:
    """Channels 0, 1, 2, …, joined to units, some of them frozen with the reason."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._reason: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._parent)

    def new(self, count: int) -> list[int]:
        """Return `count` new channels, each a unit of its own."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return list(range(start, start + count))

    def find(self, channel: int) -> int:
        """Return the channel that stands for the unit of `channel`."""
        while self._parent[channel] != channel:
            self._parent[channel] = self._parent[self._parent[channel]]
            channel = self._parent[channel]
        return channel

    def join(self, some: Sequence[int], others: Sequence[int]) -> None:
        """Join channel by channel; a frozen unit freezes what it is joined with."""
        for a, b in zip(some, others, strict=True):
            a, b = self.find(a), self.find(b)
            if a != b:
                self._parent[b] = a
                if b in self._reason:
                    self._reason.setdefault(a, self._reason.pop(b))

    def freeze(self, channels: Iterable[int], reason: str) -> None:
        """Keep these channels for ever; the first reason given is the one that is told."""
        for channel in channels:
            self._reason.setdefault(self.find(channel), reason)

    def reason(self, channel: int) -> str | None:
        """Return why the channel's unit is frozen, or None."""
        return self._reason.get(self.find(channel))
