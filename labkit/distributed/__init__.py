"""Many processes: start them, and train one model with all of them."""

from labkit.distributed.launcher import ranks_watched as ranks_watched  # live() knows Ranks
from labkit.distributed.launcher.failure import RankError as RankError
from labkit.distributed.launcher.launch import Ranks as Ranks
from labkit.distributed.launcher.launch import launch as launch
from labkit.distributed.launcher.world import RankStep as RankStep
from labkit.distributed.launcher.world import World as World
from labkit.distributed.launcher.world import init as init
from labkit.distributed.launcher.world import tell as tell
