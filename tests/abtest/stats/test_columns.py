from abtest.stats.columns import Column, on_days, parts_of


def test_columns_are_the_same_by_what_they_hold():
    assert Column("views", 2) == Column("views", day=2)
    assert len({Column("views", day=2), Column("views", through=2), Column("views", part="2"), "views"}) == 4


def test_a_columns_text_tells_its_day_part_or_last_day():
    assert list(map(str, (Column("c", 0), Column("c", part="new"), Column("c", through=3)))) == ["c@0", "c@new", "c<=3"]


def test_the_sum_over_days_is_of_one_column_a_day():
    assert on_days("views", range(1, 3)) == [Column("views", 1), Column("views", 2)]
    assert on_days("views", range(0)) == []


def test_parts_may_have_any_name():
    columns = [Column("views", part="a@b"), Column("shown", part="a@b"), Column("views", part=""), Column("views", 1)]
    assert parts_of([*columns, "views"]) == ["a@b", ""]
