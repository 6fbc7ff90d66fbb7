"""What a figure depends on beside the model."""
