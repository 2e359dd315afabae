"""`python -m sampan`: the `sampan` command."""

from sampan.cli.main import entry

if __name__ == "__main__":
    entry()
