"""What every part of a run stands on: ranks, the journal, heartbeats, control, names of weights, saved state."""
