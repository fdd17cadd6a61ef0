"""What only a real broker and real processes can show."""
