"""L2: Redis, as nearcache uses it. ``driver.Driver`` carries out batches of commands; ``scripts`` are its verbs."""
