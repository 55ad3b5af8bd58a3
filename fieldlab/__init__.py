"""Fieldlab: shop-floor telemetry that loses nothing, with zero-defect analytics.

The words everyone shares are in `fieldlab.model`; the command is in `fieldlab.cli`.
"""

__version__ = "0.1.0"
