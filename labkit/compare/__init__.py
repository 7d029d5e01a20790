"""Fair comparison: races, verdicts and the scoreboard that remembers them."""

from labkit.compare import scoreboard
from labkit.compare.race import Race, Round
from labkit.compare.record import Record
from labkit.compare.standing import step_standings
from labkit.compare.verdict import Verdict

__all__ = ["Race", "Record", "Round", "Verdict", "scoreboard", "step_standings"]
