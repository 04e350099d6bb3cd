"""`wackamole doctor`: looks at this host and its cluster, and says what is wrong and what to do about it.

It changes nothing. With a running daemon it asks that one's control socket; without one it reads the config and the host.
`examination.py` has the list of the checks; each is a function from what is known of the host to a Finding.
"""
