"""The command line. `stoker.cli.app` is the entry point; everything else loads when a command needs it."""
