"""Judging samples."""

from minigen.metrics.modes import Coverage, mode_coverage

__all__ = ["Coverage", "mode_coverage"]
