"""`driftline demo`: a simulated week from the broker to the report, and what is shown and summed up of it.

The users are in `world`.
"""
