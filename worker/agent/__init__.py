"""The process that owns one attempt: it claims it, starts its ranks, reports for them, and ends with them.

It imports neither torch nor the trainer: how ranks are started is given to it (`worker.agent.spawn`).
"""
