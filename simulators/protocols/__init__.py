"""How simulated machines speak: an OPC UA server, MQTT devices, and a broker for them."""
