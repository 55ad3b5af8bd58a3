"""What surrounds an agent in production: services, the broker's and the store's settings, Grafana boards."""
