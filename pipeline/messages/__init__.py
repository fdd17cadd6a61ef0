"""What goes in and out: records, events, models, and their bytes."""
