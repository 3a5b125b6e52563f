"""A standard Feast repository (`feast apply` works in this directory) and the calls the rooms make on it."""
