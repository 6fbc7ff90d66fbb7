"""Matrix factorisation by Bayesian personalised ranking, from the library implicit."""

import numpy as np
from scipy import sparse

from recjax.baselines.matrix import histories, interactions
from recjax.common.errors import UserError
from recjax.data.batching.types import Queries
from recjax.data.dataset import Examples


class BprMf:
    """Scores an item by its factors times the mean factors of the history, plus a bias.

    Rendle et al., *BPR: Bayesian personalized ranking from implicit feedback*, UAI
    2009: an item the user interacted with should score above a random one. Without a
    history the bias decides.

    Args:
      seed: seed of the initial factors and of the sampling.
      width: D, number of factors.
      learning_rate, l2: chosen on the validation examples of MovieLens 100K and Amazon
        Industrial; `l2` is the penalty on the squares of all factors.
      epochs: passes over the interactions (the library's default).

    Raises:
      UserError: the library is not installed.
    """

    def __init__(
        self,
        seed: int,
        *,
        width: int = 64,
        learning_rate: float = 0.05,
        l2: float = 0.002,
        epochs: int = 100,
    ):
        try:
            from implicit.bpr import BayesianPersonalizedRanking
        except ImportError:
            raise UserError(
                "bpr_mf needs the library implicit: pip install 'implicit>=0.7.3'"
            ) from None
        self.model = BayesianPersonalizedRanking(
            factors=width,
            learning_rate=learning_rate,
            regularization=l2,
            iterations=epochs,
            random_state=seed,
            num_threads=1,  # threads race for the factors: results would differ by run
            use_gpu=False,
        )

    def fit(self, examples: Examples, num_items: int) -> None:
        matrix_VxN = sparse.csr_matrix(interactions(examples, num_items))
        self.model.fit(matrix_VxN, show_progress=False)
        # The library stores the bias as the last factor.
        self.items_NxD = self.model.item_factors[:, :-1]
        self.bias_N = self.model.item_factors[:, -1]

    def score(self, queries: Queries) -> np.ndarray:
        # Learned user factors serve training only, because queries are known by their
        # history alone. On the validation examples of MovieLens 100K the mean of the
        # history was also better (NDCG@10 .085 against .041, or .077 against .062 with
        # the settings that are best for the user's own factors).
        history_BxN = histories(queries, len(self.bias_N))
        lengths_B = np.maximum(history_BxN.sum(axis=1), 1)
        users_BxD = (history_BxN @ self.items_NxD) / lengths_B[:, None]
        return users_BxD @ self.items_NxD.T + self.bias_N
