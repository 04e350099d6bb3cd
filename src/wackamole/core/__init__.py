"""The part that decides: pure, deterministic, hashable, no clock, no sockets (see machine.py)."""
