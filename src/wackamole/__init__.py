"""Wackamole keeps virtual IP addresses alive on a cluster of Linux hosts."""

__version__ = "3.0.0.dev0"
