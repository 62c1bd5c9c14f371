"""Making models physically smaller: channels or whole parts are removed, the model is rebuilt."""

from tfprune.structured.blocks import ResidualBlock, find_blocks
from tfprune.structured.depth import block_costs, drop_blocks
from tfprune.structured.graph import ChannelGraph
from tfprune.structured.groups import ChannelGroup, FrozenChannels
from tfprune.structured.history import CutAxis, ShrinkHistory, history_of, replay
from tfprune.structured.optimizer_carrying import carry_optimizer
from tfprune.structured.recalibration import recalibrate_batch_norm
from tfprune.structured.verify import ShrinkCheck, verify

__all__ = [
    "ChannelGraph",
    "ChannelGroup",
    "CutAxis",
    "FrozenChannels",
    "ResidualBlock",
    "ShrinkCheck",
    "ShrinkHistory",
    "block_costs",
    "carry_optimizer",
    "drop_blocks",
    "find_blocks",
    "history_of",
    "recalibrate_batch_norm",
    "replay",
    "verify",
]
