"""`python -m pulmofuse` is the command `pulmofuse`."""

from pulmofuse.cli import main

main()
