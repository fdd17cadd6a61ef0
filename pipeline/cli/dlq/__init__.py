"""`eddy dlq`: dead letters listed, shown, sent again."""
