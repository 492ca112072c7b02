"""``python -m lof``: the command line."""

from lof.cli import main

if __name__ == "__main__":
    main()
