"""Makes ``python -m pop3proxy`` the command line; no logic."""

from .cli import main

if __name__ == "__main__":
    main()
