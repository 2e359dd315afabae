"""Drivers, addresses, published ports, names."""
