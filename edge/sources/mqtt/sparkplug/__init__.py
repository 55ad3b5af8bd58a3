"""Sparkplug B: the source as a host application. `format` is what the registry imports."""
