"""Compression under a gate: passes make candidates, every candidate is measured, the best that holds wins.

    source → recipes → passes (a process each, checked) → measured → gates → winner → proven again → registered

`sampan.compress.engine.compress` is the door. Importing this package loads nothing heavy.
"""
