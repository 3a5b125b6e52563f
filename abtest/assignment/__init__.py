"""Which arm a user is in: buckets, ramps, layers, exclusion. The one part of `abtest` that a replica imports.

It reads nothing and remembers nothing; what users did is in `abtest.collect`.
"""
