"""A report as files: HTML, Markdown, JSON with its schema, and the comparison of two of them.

Nothing is estimated or decided here.
"""
