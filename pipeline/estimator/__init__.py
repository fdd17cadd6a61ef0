"""Eddy without Kafka, for people who know scikit-learn: behind ``from pipeline import …``."""
