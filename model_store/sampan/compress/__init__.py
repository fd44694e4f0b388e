"""Compression under a gate: passes make candidates, every candidate is measured, the best that holds wins."""
