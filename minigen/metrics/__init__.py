"""Judging samples."""

from minigen.metrics.likelihood import bits_per_dim
from minigen.metrics.modes import Coverage, mode_coverage
from minigen.metrics.ngrams import distinct, presence

__all__ = ["Coverage", "bits_per_dim", "distinct", "mode_coverage", "presence"]
