# cython: language_level=3
# cython: freethreading_compatible=True
"""Decide how many threads a parallel region uses. Nothing else in the package decides this."""

from __future__ import annotations

import os
import threading
from operator import index

cdef extern from *:
    """
    #ifdef _OPENMP
    #define Z4_OPENMP 1
    #else
    #define Z4_OPENMP 0
    #endif
    """
    const bint Z4_OPENMP

ENVIRONMENT_VARIABLE = "Z4AI_NUM_THREADS"
MAX_THREADS = 256

# GNU OpenMP keeps its pool across fork, without the threads: a child that opens a region of more
# than one thread waits for them for ever. Another library of the parent may have opened that pool,
# so every child counts as spoilt. Comparing process numbers also catches a fork made in C.
_home = os.getpid()

_lock = threading.RLock()  # reentrant: the collector may end a forgotten lease inside it
_in_use = 0
_generation = object()  # leases of before a fork give nothing back after it


def _after_fork_in_child() -> None:
    global _lock, _in_use, _generation
    _lock = threading.RLock()
    _in_use = 0
    _generation = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


cpdef bint openmp() noexcept:
    """Return whether parallel regions were compiled in."""
    return Z4_OPENMP


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except (OSError, ValueError):
        return None


def _ratio(quota: str, period: str) -> int | None:
    """Return the CPUs that a quota amounts to, rounded up; None for no quota."""
    try:
        time, every = int(quota), int(period)
    except ValueError:  # "max"
        return None
    if time <= 0 or every <= 0:
        return None
    return max(1, -(-time // every))


def _ancestors(path: str) -> list[str]:
    """Return a group and the groups above it, whose limits hold for it too."""
    parts = [part for part in path.split("/") if part and part != ".."]
    return ["/".join(parts[:depth]) for depth in range(len(parts), -1, -1)]


def cgroup_cpus(proc: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> int | None:
    """Return the CPUs that the control group allows, rounded up.

    Parameters
    ----------
    proc
        File that names the groups of this process.
    root
        Where the group hierarchy is mounted.

    Returns
    -------
    int or None
        None where there is no limit or it cannot be read.
    """
    found = []
    for line in (_read(proc) or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            for group in _ancestors(path):
                words = (_read(os.path.join(root, group, "cpu.max")) or "").split()
                if len(words) == 2:
                    found.append(_ratio(words[0], words[1]))
        elif "cpu" in controllers.split(","):
            for mount in (controllers, "cpu"):
                for group in _ancestors(path):
                    folder = os.path.join(root, mount, group)
                    quota = _read(os.path.join(folder, "cpu.cfs_quota_us"))
                    period = _read(os.path.join(folder, "cpu.cfs_period_us"))
                    if quota is not None and period is not None:
                        found.append(_ratio(quota, period))
    return min([cpus for cpus in found if cpus is not None], default=None)


_cgroup = cgroup_cpus()


def _available() -> int:
    """Return the CPUs this process may use: affinity mask and control group."""
    if hasattr(os, "process_cpu_count"):
        cpus = os.process_cpu_count()
    elif hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count()
    cpus = cpus or 1
    return cpus if _cgroup is None else min(cpus, _cgroup)


def default_threads() -> int:
    """Return the thread budget of this process.

    Returns
    -------
    int
        ``Z4AI_NUM_THREADS`` where it is set, else the CPUs that the affinity mask and the control
        group leave to this process; at most 256.

    Raises
    ------
    ValueError
        If ``Z4AI_NUM_THREADS`` is not a positive integer.
    """
    text = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
    if not text:
        return min(_available(), MAX_THREADS)
    if not (text.isascii() and text.isdecimal() and int(text[:20]) > 0):
        raise ValueError(f"{ENVIRONMENT_VARIABLE} must be a positive integer, not {text!r}")
    return min(int(text[:20]), MAX_THREADS)


def _explicit(threads: object) -> int:
    if isinstance(threads, bool):
        raise TypeError("threads must be a positive integer or None, not bool")
    try:
        value = index(threads)
    except TypeError:
        raise TypeError(
            f"threads must be a positive integer or None, not {type(threads).__name__}"
        ) from None
    if value < 1:
        raise ValueError(f"threads must be at least 1, not {value}")
    return min(value, MAX_THREADS)


cpdef int effective(object threads, Py_ssize_t n_jobs) except -1:
    """Return how many threads ``n_jobs`` independent jobs get, other callers left aside.

    Parameters
    ----------
    threads
        A positive count, honoured up to 256 whatever the affinity mask says; or None for
        `default_threads`.
    n_jobs
        There are never more threads than jobs.

    Returns
    -------
    int
        At least 1; exactly 1 in a forked child and where OpenMP is not compiled in.

    Raises
    ------
    TypeError
        If ``threads`` is a bool or no integer.
    ValueError
        If ``threads`` is less than 1, or the environment variable is no positive integer.
    """
    wanted = default_threads() if threads is None else _explicit(threads)
    if not Z4_OPENMP or os.getpid() != _home:
        return 1
    return max(1, min(wanted, n_jobs))


cdef class Lease:
    """Threads taken from the budget of the process until `release` or the end of ``with``.

    Attributes
    ----------
    threads : int
        The threads granted, at least 1.
    """

    # No annotation on threads: Cython would take a bool for an int and refuse NumPy's integers.
    def __init__(self, threads, n_jobs: int) -> None:
        global _in_use
        wanted = effective(threads, n_jobs)
        budget = default_threads() if threads is None else wanted
        with _lock:
            if threads is None:  # an explicit request is granted whole, but counts for the others
                wanted = max(1, min(wanted, budget - _in_use))
            _in_use += wanted
            self.home = _generation
        self.threads = wanted
        self.held = True

    cpdef void release(self):
        """Give the threads back. A second call does nothing."""
        global _in_use
        with _lock:
            if self.held and self.home is _generation:
                _in_use -= self.threads
            self.held = False

    def __del__(self) -> None:
        self.release()

    def __enter__(self) -> int:
        return self.threads

    def __exit__(self, *exc: object) -> None:
        self.release()


def lease(threads, n_jobs: int) -> Lease:
    """Take threads from the budget that all callers in this process share.

    Parameters
    ----------
    threads, n_jobs
        As for `effective`. With None, what other leases hold is left to them: a busy process gets
        one thread a call.

    Returns
    -------
    Lease
        A context manager; ``with lease(threads, n_jobs) as n_threads:``.
    """
    return Lease(threads, n_jobs)


def in_use() -> int:
    """Return the number of threads on lease."""
    return _in_use
