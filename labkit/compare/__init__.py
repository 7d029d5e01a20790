"""Fair comparison: races, tradeoffs, verdicts and the scoreboard that remembers them."""

from labkit.compare import scoreboard
from labkit.compare.race import Race, Round
from labkit.compare.record import Record
from labkit.compare.standing import step_standings
from labkit.compare.tradeoff import Tradeoff
from labkit.compare.tradeoff_report import Reading, TradePoint
from labkit.compare.verdict import Verdict

__all__ = [
    "Race",
    "Reading",
    "Record",
    "Round",
    "TradePoint",
    "Tradeoff",
    "Verdict",
    "scoreboard",
    "step_standings",
]
