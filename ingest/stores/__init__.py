"""Where readings are kept for people to query. One folder a kind."""
