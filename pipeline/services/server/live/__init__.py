"""Live streams: events and frames to everybody who listens."""
