// The one function of the C library that training needs by itself.

internal import Glibc

/// The natural logarithm.
func logOf(_ value: Float) -> Float { logf(value) }
