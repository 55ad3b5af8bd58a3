"""CPU per value of OPC UA clients on one load."""
