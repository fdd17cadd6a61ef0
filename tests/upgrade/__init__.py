"""Rolling upgrade and rollback: old and new assigners side by side on a real broker."""
