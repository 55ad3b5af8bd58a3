"""Charts on public recordings, and what a value costs."""
