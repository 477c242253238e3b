"""The bundled model: its training data, training and evaluation."""
