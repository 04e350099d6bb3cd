"""The Spread engine: a client of the Spread Toolkit's daemon, without its library."""
