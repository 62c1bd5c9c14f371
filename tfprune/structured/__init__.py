"""Making models physically smaller: whole parts are removed, and the model is rebuilt."""

from tfprune.structured.blocks import ResidualBlock, find_blocks
from tfprune.structured.depth import block_costs, drop_blocks

__all__ = ["ResidualBlock", "block_costs", "drop_blocks", "find_blocks"]
