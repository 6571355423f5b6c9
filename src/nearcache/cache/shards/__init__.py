"""The list of shards of a cache on Redis, and how it changes while all work."""
