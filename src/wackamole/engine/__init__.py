"""Group engines behind one contract (contract.py): Corosync CPG and an in-process model of one."""
