# How many threads a parallel region may use; see the docstrings in _threads.pyx.

cpdef bint openmp() noexcept
cpdef int effective(object threads, Py_ssize_t n_jobs) except -1

cdef class Lease:
    cdef readonly int threads
    cdef bint held
    cdef object home
    cpdef void release(self)
