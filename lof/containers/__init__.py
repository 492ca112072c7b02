"""File formats: how strings, sizes and metadata become one file."""
