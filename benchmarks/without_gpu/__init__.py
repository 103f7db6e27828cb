"""CUDA without a GPU: a pretended card, what is generated for it, and what the compiler makes of that."""
