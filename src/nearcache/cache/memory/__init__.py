"""Caches of one process: ``memory://``."""
