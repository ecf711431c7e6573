"""The same work as the clips job, written as people write it."""
