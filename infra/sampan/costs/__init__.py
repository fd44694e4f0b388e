"""What serving costs: prices of a dated file, arithmetic on them, and an estimate of energy.

    prices.toml → Prices · Energy → cost.py · energy.py: pure functions

Nothing here asks AWS; a free tier is an account's, not a model's, and is never taken off.
"""
