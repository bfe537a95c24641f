"""The command line: JSON Lines in, answered rows out. `main` can be called from a program too."""

from distgen.cli.main import main

__all__ = ["main"]
