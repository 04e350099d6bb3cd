"""`python -m wackamole`."""

from .cli import main

main()
