"""What happens to a language model when the text gets longer than it was trained on."""

__version__ = "0.1.0"
