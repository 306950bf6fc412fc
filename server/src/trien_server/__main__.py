"""`python -m trien_server` is `trien-server`."""

from trien_server.cli.main import main

if __name__ == "__main__":
    main()
