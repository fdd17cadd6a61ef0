"""The portable CPU twin: float32 proposes, a bound filters, float64 decides."""
