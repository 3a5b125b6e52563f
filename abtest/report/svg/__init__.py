"""The report's drawings as SVG: scales, courses over days, forests of intervals.

The words around them are in the templates.
"""
