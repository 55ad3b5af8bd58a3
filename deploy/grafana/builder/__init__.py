"""A small builder: frozen structs in, Grafana's classic dashboard JSON out."""
