"""Data on their way to the network: splits, loaders, augmentation. Importing it costs no torchvision."""

from __future__ import annotations

from distillctl.data.batches import EvalLoader, TrainLoader
from distillctl.data.loaders import eval_loader, train_loader
from distillctl.data.order import Share
from distillctl.data.splits import limit_training, listing_hash, stratified_split, three_way_split

__all__ = [
    "EvalLoader",
    "Share",
    "TrainLoader",
    "eval_loader",
    "limit_training",
    "listing_hash",
    "stratified_split",
    "three_way_split",
    "train_loader",
]
