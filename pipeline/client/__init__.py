"""Ask, feed and follow Eddy from Python: knows the server's API and the topics, nothing inside."""
