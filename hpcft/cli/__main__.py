"""`python -m hpcft.cli`."""

from hpcft.cli import main

if __name__ == "__main__":
    main()
