"""Pruning methods that take more than one run of `fit`."""

from tfprune.methods.lottery_ticket import lottery_ticket
from tfprune.methods.sparse_gpt import sparse_gpt

__all__ = ["lottery_ticket", "sparse_gpt"]
