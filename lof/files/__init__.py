"""Where files are, and how they are written: storages, inputs, atomic writing."""
