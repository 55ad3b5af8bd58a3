"""Curves of parts, such as press force against travel: learned envelopes, and rules."""
