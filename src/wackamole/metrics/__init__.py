"""`wackamole metrics`: the cluster as one member knows it, for Prometheus, by a process that needs no rights.

catalogue.py    every metric, in one table                 pure
readiness.py    what keeps a member from being ready       pure
server.py       /metrics, /healthz and /readyz, read only
"""
