"""Whether an error says that memory ran out, in whichever words the library has that ran out of it."""

_CLASS = "OutOfMemoryError"
"""Of torch; known by its name, because most commands never import torch."""
_WORDS = ("allocate memory", "out of memory", "not enough memory", "cublas_status_alloc_failed")


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` is lack of memory, of the host or of a device."""
    named = any(each.__name__ == _CLASS for each in type(error).__mro__)
    return named or isinstance(error, MemoryError) or any(word in str(error).lower() for word in _WORDS)
