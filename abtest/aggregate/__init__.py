"""From users and their days to sums, moments and histograms by day, arm and segment: all that a report needs.

No significance is decided here (`abtest.analyse`), and no file of rows is opened here (`abtest.read`).
"""
