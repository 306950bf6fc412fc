"""How many descriptors this process may open."""

import resource


def allow_descriptors(wanted: int) -> int:
    """Raises the process's soft limit of open descriptors to `wanted`, at most to the hard one; returns what holds.

    Shells and service managers commonly start programs with 1,024: fewer than the connections that a server takes on,
    and when callers have taken the last one, neither database nor token can open a file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft >= wanted:
        return soft
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
