"""The edge agent: machines to batches, and the process that supervises it all."""
