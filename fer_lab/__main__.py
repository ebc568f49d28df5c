"""`python -m fer_lab` is the command line."""

from fer_lab.cli import main

if __name__ == "__main__":
    main()
