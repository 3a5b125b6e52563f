"""What `driftline experiment` does beside `abtest`: data found, plans made up into tables, the live page.

Statistics are in `abtest`.
"""
