"""Reads uploaded files and says what is in them, in a process of its own: `python -m server.datasets.measure`.

Whatever a file does to its parser, it does to this process: a limit on memory, processor time and wall time ends it.
"""
