"""`python -m tracklayer`: the command line, where the script is not on the path."""

from tracklayer.cli import main

if __name__ == "__main__":
    main(prog_name="tracklayer")
