"""Stand-alone scripts, one a framework; each runs in an environment of its own, which needs no Sampan.

`run.py` is what an interpreter is given. It loads one `from_….py`, whose `export(task)` reads the source, writes
`task.model`, and returns an `Export`: how, with which packages, and a function that answers inputs with the
framework itself.
"""
