"""`python -m agents` is `citybrain`."""

from agents.commands import main

main(prog_name="citybrain")
