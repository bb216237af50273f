"""Pure numpy: how updates become ring vectors, and how their sum becomes the next model."""
