"""Rows of users and days from Parquet, SQL engines and data frames: opened, checked, and added up piece by piece.

The state of the collector is not read here; it is in `abtest.collect`.
"""
