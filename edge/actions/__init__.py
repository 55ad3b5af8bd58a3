"""What the platform may do to a machine: off unless configured, at most once, rate limited, audited."""
