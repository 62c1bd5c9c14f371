"""Callbacks for `model.fit`: drive the schedule, log it, guard it."""

from tfprune.callbacks.at_target_sparsity import AtTargetSparsity
from tfprune.callbacks.shrink_schedule import ShrinkSchedule
from tfprune.callbacks.sparsity_logger import SparsityLogger
from tfprune.callbacks.target_guard import TargetGuard
from tfprune.callbacks.update_masks import UpdateMasks

__all__ = ["AtTargetSparsity", "ShrinkSchedule", "SparsityLogger", "TargetGuard", "UpdateMasks"]
