"""Simulated machines on real protocols, with the truth of what they sent.

Imports nothing of the agent: a simulator must be able to disagree with it.
"""
