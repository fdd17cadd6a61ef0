"""The twin that is Apache Kafka; the only room that knows its client."""
