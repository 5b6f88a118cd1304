"""One script per question; each prints ratios to a floor or a peer measured in the same run. Results are kept in LOG.md."""
