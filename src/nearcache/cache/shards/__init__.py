"""The list of shards, as caches have it: what is said of changing it, and a cache whose shards may change."""
