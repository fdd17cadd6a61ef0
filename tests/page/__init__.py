"""The page of the server in a real browser; see ``make browser-test``."""
