"""Corosync's closed process groups as a group engine: binding, membership, configuration and supervision."""
