"""What other tools load from qpeft by name. Nothing here is imported by qpeft itself."""
