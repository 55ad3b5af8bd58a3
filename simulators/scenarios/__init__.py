"""Scenarios: which machines, how fast, and what goes wrong when. TOML files; those in this folder have names.

A scenario file:

    title = "one line"
    about = "a paragraph"
    site = "drachten"
    area = "shavers"
    line = "3"
    seed = 7                     # readings are the same for the same seed
    duration = 30.0              # s; whole cycles are made
    sample_period = 0.05         # s
    cycle_time = 0.4             # s between two parts

    [[machine]]
    name = "cnc-07"
    kind = "cnc_mill"            # cnc_mill · robot · printer
    cycle_time = 0.5             # sample_period and cycle_time may differ from machine to machine

    [[machine.fault]]
    kind = "tool_wear"
    start_part = 41              # or start_seconds, or start_fraction of the duration
    end_part = 56                # the first part after the repair; or end_seconds, end_fraction; absent: never repaired
    severity = 1.0
"""

from simulators.scenarios.describe import describe
from simulators.scenarios.load import FaultPlan, MachinePlan, Scenario, ScenarioError, load, machines, named

__all__ = ["FaultPlan", "MachinePlan", "Scenario", "ScenarioError", "describe", "load", "machines", "named"]
