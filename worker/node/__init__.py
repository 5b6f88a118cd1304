"""This machine as a worker: its heartbeat, its queue, its devices, and the agents that it starts."""
