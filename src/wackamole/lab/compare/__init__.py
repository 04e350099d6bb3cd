"""Other systems in our lab, side by side with ours (docs/benchmarks/README.md; `script/bench --against`)."""
