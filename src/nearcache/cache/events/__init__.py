"""Listening to what happens in a cache."""
