from evaluation.baselines.popularity import Popularity
from tests.evaluation.baselines.baseline_cases import sequence


def test_popularity_of_the_last_days_counts_from_the_newest_behaviour() -> None:
    learnt = [sequence(0, 0, 1, 2), sequence(0)]
    assert Popularity().fit(learnt, 4).scores([sequence()]).tolist() == [[3, 1, 1, 0]]
    assert Popularity(days=2).fit(learnt, 4).scores([sequence(), sequence(1)]).tolist() == [[0, 1, 1, 0]] * 2
