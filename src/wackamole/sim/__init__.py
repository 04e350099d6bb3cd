"""A cluster in a box: cores on the memory engine with modelled kernels, under the caller's clock and the caller's choices."""
