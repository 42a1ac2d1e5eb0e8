"""`python -m layerstill`."""

from layerstill.cli import main

main()
