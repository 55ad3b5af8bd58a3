"""CPU per message of our MQTT source, of plain paho and of mosquitto_sub, against a real mosquitto."""
