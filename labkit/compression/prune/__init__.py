"""Remove weights or whole channels of a trained model, and prove what that costs."""

from labkit.compression.prune.batch_norm_fold import fold_batch_norm
from labkit.compression.prune.budget import choose_for_flops
from labkit.compression.prune.channel_pruning import channels
from labkit.compression.prune.choice import choose
from labkit.compression.prune.controls import renewed, shuffled
from labkit.compression.prune.criteria import batch_norm_scores, magnitude_scores, taylor_scores
from labkit.compression.prune.dead_channels import Finding, Lossless, remove_lossless
from labkit.compression.prune.files import load, save
from labkit.compression.prune.gradual import cubic_sparsity, grow, hold
from labkit.compression.prune.graph import ChannelGraph, Group
from labkit.compression.prune.grouping import channel_graph
from labkit.compression.prune.masks import (
    apply_masks,
    compressed_bytes,
    magnitude_masks,
    masked,
    sparsity,
)
from labkit.compression.prune.n_of_m import n_m_mask, n_m_masks
from labkit.compression.prune.removal import (
    ModelSize,
    mask_channels,
    predict_size,
    remove_channels,
)
from labkit.compression.prune.scan import Sensitivity, sensitivity, sensitivity_table
from labkit.compression.prune.slimming import shrink

__all__ = [
    "ChannelGraph",
    "Finding",
    "Group",
    "Lossless",
    "ModelSize",
    "Sensitivity",
    "apply_masks",
    "batch_norm_scores",
    "channel_graph",
    "channels",
    "choose",
    "choose_for_flops",
    "compressed_bytes",
    "cubic_sparsity",
    "fold_batch_norm",
    "grow",
    "hold",
    "load",
    "magnitude_masks",
    "magnitude_scores",
    "mask_channels",
    "masked",
    "n_m_mask",
    "n_m_masks",
    "predict_size",
    "remove_channels",
    "remove_lossless",
    "renewed",
    "save",
    "sensitivity",
    "sensitivity_table",
    "shrink",
    "shuffled",
    "sparsity",
    "taylor_scores",
]
