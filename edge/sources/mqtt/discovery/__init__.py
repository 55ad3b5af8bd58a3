"""What `fieldlab discover mqtt://…` does with the messages that it heard."""
