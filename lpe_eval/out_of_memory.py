"""Whether an error says that memory, or the threads it would take, ran out, in whichever words a library has for it."""

import errno

_CLASS = "OutOfMemoryError"
"""Of torch; known by its name, because most commands never import torch."""
_WORDS = (
    *("allocate memory", "out of memory", "not enough memory", "memory allocation", "cublas_status_alloc_failed"),
    # Of C++, of the loader of libraries, of Python's threads and of those of C++.
    *("bad_alloc", "failed to map segment", "can't start new thread", "resource temporarily unavailable"),
)

SENTENCE = (
    "not enough memory; what was finished is kept, and the same command goes on from there with more memory, a higher "
    "limit (ulimit -v, ulimit -u), a smaller model or shorter text"
)
"""What is said where nobody nearer to it knows more."""


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` is lack of memory, of the host or of a device."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    named = any(each.__name__ == _CLASS for each in type(error).__mro__)
    return named or any(word in str(error).lower() for word in _WORDS)
