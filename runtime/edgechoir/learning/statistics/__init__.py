"""What a federation can be asked beside training: masked means that make up statistics."""
