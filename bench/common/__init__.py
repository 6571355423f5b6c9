"""What several programs of bench/ share: a parent and its child processes that talk in lines of JSON."""
