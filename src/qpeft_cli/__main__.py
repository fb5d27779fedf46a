"""`python -m qpeft_cli`, where the command `qpeft` is not on the path, and for `accelerate launch -m qpeft_cli`."""

from qpeft_cli.main import main

main()
