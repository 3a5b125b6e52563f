"""An experiment to which a day of rows is added at a time: what is kept between days, and the day that is added.

What it gives equals what `abtest.read.rows` gives of all days at once.
"""
