"""A standard Feast repository (`feast apply` works in this directory) and the calls the rooms make on it."""

# Feast switches prometheus_client to its multi-process mode, in which all workers of a process share their values and
# leave files behind, unless prometheus_client is imported before it.
import prometheus_client  # noqa: F401
