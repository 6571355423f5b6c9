"""Caches with all tiers: L1 in this process, L2 on Redis."""
