"""`wackamole watch`: a live view of the cluster on a terminal.

overview.py, following.py    what the daemon says, and what it means
look.py                      what somebody looks at, and what a key changes of that       pure
screen.py                    the lines that are then on the screen, for any size of it    pure
terminal.py                  puts lines on the terminal, reads keys, carries orders out
"""
