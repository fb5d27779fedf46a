"""What other tools load from qpeft by name, and circuits taken from them. Nothing here is imported by qpeft itself."""
