"""Servers on this machine, for the first run and for tests. Nothing in production imports this package."""
