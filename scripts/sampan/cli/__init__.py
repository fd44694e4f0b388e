"""The command line: one file per verb, each a thin face of functions that a program can call."""
