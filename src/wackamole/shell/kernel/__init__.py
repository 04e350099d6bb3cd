"""Addresses, announcements and notifications of the Linux kernel, by raw sockets (measured: docs/decisions/0003)."""
