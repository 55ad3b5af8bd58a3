"""Batches to disk, and from disk to the stores."""
