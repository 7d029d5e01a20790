"""Many processes: start them, and train one model with all of them."""

from labkit.distributed.failure import RankError as RankError
from labkit.distributed.launch import Ranks as Ranks
from labkit.distributed.launch import launch as launch
from labkit.distributed.world import Report as Report
from labkit.distributed.world import World as World
from labkit.distributed.world import init as init
from labkit.distributed.world import report as report
