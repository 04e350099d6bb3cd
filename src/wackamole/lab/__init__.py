"""A cluster on one machine: namespaces, a bridge as the switch, real Corosync, real daemons, a client that probes."""
