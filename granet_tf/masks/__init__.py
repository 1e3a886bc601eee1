"""What is active of each weight: selection, patterns, scopes, distributions, and units.

`units` is the one algebra that methods, studies and conversions use: prune to a number of units,
drop, grow, exchange.
"""
