"""What the server shows, folded from the topics."""
