"""The local board in Chromium: time to first paint, and frames while it scrolls and values change."""
