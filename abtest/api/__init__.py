"""What `import abtest` gives: frames and plans in, reports out.

A thin shell; every figure is made by the other wings.
"""
