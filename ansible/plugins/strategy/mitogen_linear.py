"""Ansible's linear order of tasks, with one Python on each host that is kept between them instead of one for each task."""

from __future__ import annotations

from ansible_mitogen.plugins.strategy.mitogen_linear import StrategyModule

# Stands here so that the configuration need not know where Python keeps its packages.
__all__ = ["StrategyModule"]
