"""``cache.cached``: functions whose results are kept in a cache."""
