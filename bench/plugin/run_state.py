"""The state of a run from its configuration to its end, in pytest's stash."""

import pytest

from bench.plugin.settings import Settings
from bench.sharded.rank_group import RankGroup
from bench.sharded.rendezvous import RankRendezvous
from model.checkpoints.cache import CheckpointCache

SETTINGS = pytest.StashKey[Settings]()
CHECKPOINT_CACHE = pytest.StashKey[CheckpointCache]()
RANK_MEETINGS = pytest.StashKey[dict[RankGroup, RankRendezvous]]()
