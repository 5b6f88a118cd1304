"""`python -m stoker.cli`: the same as `stoker`."""

from stoker.cli.app import main

main()
