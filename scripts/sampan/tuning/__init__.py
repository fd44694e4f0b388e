"""How much memory a function should have: its image run at several sizes, with the CPU share that Lambda gives each.

sizes → rounds × (fresh instance: cold start, warm calls) → figures (latency, memory, cost) → choice → picture, file
"""
