from abtest.report.svg.scales import Point, reach


def test_one_wild_interval_does_not_flatten_the_others():
    points = [Point(0.01, -0.01, 0.03), Point(0.0, -0.02, 0.02), Point(0.0, -9.0, 9.0)]
    assert reach(points) < 0.2
