"""ONNX sessions from a weightless model and a flat vector, and their exchange under load."""
