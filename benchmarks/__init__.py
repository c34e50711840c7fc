"""How fast Outlast is, measured beside the limit of the disk and what else a user would pick: `python -m benchmarks`."""
