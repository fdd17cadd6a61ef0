"""What a process remembers of its partitions."""
