"""Readings to judgements: a pure fold over the journal's records. No clock, no files, no protocol, no randomness."""
