"""Is the sensor well? What a sick one says never reaches a chart."""
