"""Which shards there are, and how all processes come from one list of them to another."""
