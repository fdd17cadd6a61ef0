"""The server: the topics as a view, and the view over HTTP."""
