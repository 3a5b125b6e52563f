"""Figures that others have published, to stand beside ours.

T2Diff: Wang et al., Unleashing the Potential of Two-Tower Models: Diffusion-Based Cross-Interaction for Large-Scale
Matching, WWW '25 (doi 10.1145/3696410.3714829), on MovieLens-1M.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A row that somebody has published, or what of it we know."""

    figures: dict[str, float]
    ms: float | None = None  # per sample


# Table 2. Of the rivals we know recall alone; the regular two-tower is not in it by itself.
TABLE_2: dict[str, Published] = {
    "sasrec": Published({"recall@2": 0.05779, "recall@20": 0.15564}),
    "caser": Published({"recall@2": 0.05808, "recall@20": 0.15709}),
    "gru4rec": Published({"recall@2": 0.06070, "recall@20": 0.16564}),
    "bert4rec": Published({"recall@2": 0.06272, "recall@20": 0.20559}),
    "dat": Published({"recall@2": 0.05988, "recall@20": 0.25785}),
    "mamba4rec": Published({"recall@2": 0.06919, "recall@20": 0.20581}),
    "contrastvae": Published({"recall@2": 0.06023, "recall@20": 0.15203}),
    "stosa": Published({"recall@2": 0.05905, "recall@20": 0.16008}),
    "diffurec": Published({"recall@2": 0.06076, "recall@20": 0.14971}),
    "mixed-attention": Published({"recall@2": 0.06308, "recall@20": 0.26017}),
    "t2diff-without-drifts": Published({"recall@2": 0.07233, "recall@20": 0.25198}),
    "t2diff-paper": Published({"recall@2": 0.07738, "recall@20": 0.27727, "mrr@2": 0.06076, "mrr@20": 0.08730}),
}

# Table 3, by β.
TABLE_3: dict[str, Published] = {
    "exponential": Published({"recall@2": 0.07738, "recall@20": 0.27727}),
    "linear": Published({"recall@2": 0.07686, "recall@20": 0.27519}),
    "log": Published({"recall@2": 0.07256, "recall@20": 0.25151}),
}

# Table 4, by T; milliseconds on a Tesla T4.
TABLE_4: dict[int, Published] = {
    10: Published({"recall@2": 0.0769, "recall@20": 0.2724}, ms=0.22),
    50: Published({"recall@2": 0.0774, "recall@20": 0.2773}, ms=0.68),
    200: Published({"recall@2": 0.0771, "recall@20": 0.2715}, ms=2.30),
}

# Leave-one-out on MovieLens-1M in time order: Zhai et al., Actions Speak Louder than Words: Trillion-Parameter
# Sequential Transducers for Generative Recommendations, ICML 2024.
LEAVE_ONE_OUT: dict[str, Published] = {
    "SASRec": Published({"recall@10": 0.285, "ndcg@10": 0.163}),
    "HSTU": Published({"recall@10": 0.310, "ndcg@10": 0.172}),
    "HSTU-large": Published({"recall@10": 0.329, "ndcg@10": 0.189}),
}
