# The instruction set chosen at import, for kernel modules to pick their row of a variant table.

cdef int isa
cdef int current_isa() noexcept nogil
