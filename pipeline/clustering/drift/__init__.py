"""Whether a stream is still what its model was fitted on, with a stated rate of false alarms."""
