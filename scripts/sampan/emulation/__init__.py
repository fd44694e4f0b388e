"""Packaged functions run locally as Lambda would: CPU share, memory, read-only root, time limits, one event at a time.

target → instance (RIE process, container) → pool (scales out) → REPORT; sam local; comparison of all levels
"""
