"""`python -m wackamole`."""

from .entry import main

main()
