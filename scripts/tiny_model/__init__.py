"""The bundled model: its training data, its training, and what is measured of it."""
