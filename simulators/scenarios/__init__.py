"""Scenarios: which machines, how fast, and what goes wrong when. TOML files; those in this folder have names.

simulators/README.md has a file with every key; a test runs it.
"""

from simulators.scenarios.describe import describe
from simulators.scenarios.load import FaultPlan, HabitPlan, MachinePlan, Scenario, ScenarioError, load, machines, named

__all__ = [
    "FaultPlan",
    "HabitPlan",
    "MachinePlan",
    "Scenario",
    "ScenarioError",
    "describe",
    "load",
    "machines",
    "named",
]
