"""The package is tested with itself installed (test_plugin.py), not by our own run."""

collect_ignore = ["package"]
