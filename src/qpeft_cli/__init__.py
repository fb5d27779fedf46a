"""The command line, one thin file per command.

It stands beside the package `qpeft`, whose import takes seconds: a command's file imports it inside the function that
runs, so that help and a mistyped option answer at once. What many commands share (`adapted`, `on_device`, `scoring`)
imports qpeft freely and is itself imported by commands that run.
"""
