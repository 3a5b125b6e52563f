"""From exposures and feedback on Kafka to a state that merges: the collector's process, its records, its file.

It judges nothing; rows of users and days are made of the state in `abtest.aggregate`.
"""
