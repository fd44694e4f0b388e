"""Where a model should run: what it costs, how fast it answers, and why not elsewhere.

    version → Profile · traffic → window → simulated on each option → cost, p50/p95/p99, energy → Plan → table · plot

Every number says where it is from: measured, given, scaled by a stated factor, assumed, or documented.
"""
