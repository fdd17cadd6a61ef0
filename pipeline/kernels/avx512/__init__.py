"""The twin for AVX-512, and its cousin with a matrix unit: narrow operands propose."""
