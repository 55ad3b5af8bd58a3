"""Grafana boards as code: built here, committed as JSON, provisioned from files or pushed."""
