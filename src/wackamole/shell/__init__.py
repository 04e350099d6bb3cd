"""The part that acts: loop, kernel, control socket, journal."""
