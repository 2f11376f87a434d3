"""`python -m bedplate`: the same command, for where the script folder is not at hand."""

from bedplate.cli import main

if __name__ == "__main__":
    main()
