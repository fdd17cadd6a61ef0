"""The `eddy` command: puts a process together; the only floor that picks a twin."""
