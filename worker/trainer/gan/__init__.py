"""Training of two networks in turn: the passes, and the samples that the generator leaves."""
