"""Speed and cost of a run: where its time goes, what a sample costs, what a device can do at most."""
