"""Shadow mode: how often the incumbent is left for the policy's own draw, and what the two are worth beside
each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from policy.choices import Candidate
from policy.log import DecisionRecord, ReportRecord


def mixed(proposal: Sequence[float], incumbent: int, explore_share: float) -> list[float]:
    """The true probabilities of a decision that takes the policy's draw with probability `explore_share` and
    the incumbent else: (models,), p = (1 - share) * 1[incumbent] + share * proposal.
    """
    result = [explore_share * each for each in proposal]
    result[incumbent] += 1.0 - explore_share
    return result


def explores(decision_id: str, explore_share: float) -> bool:
    """Whether this decision takes the policy's draw. Another hash than the draw's, so the two are independent."""
    digest = blake2b(decision_id.encode(), digest_size=8, person=b"pointsman.shadow").digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53 < explore_share


def affordable_share(
    wanted: float, proposal: Sequence[float], scores: Sequence[float], incumbent: int, loss_max: float
) -> float:
    """The share that may explore in this decision: what is wanted, or less if the policy's draw would give up
    more than `loss_max` on average.

    What it gives up is measured against the incumbent, which is what would be called else: the incumbent's
    score less the drawn model's where the incumbent's is the better, and nothing where it is not. A gain does
    not pay for a loss, as both are only predicted. `scores` (models,) are utilities before any exclusion,
    since an incumbent is obeyed even where it would be excluded.
    """
    loss = wanted * sum(
        share * max(0.0, scores[incumbent] - score) for share, score in zip(proposal, scores, strict=True) if share
    )
    return wanted if loss <= loss_max else wanted * loss_max / loss


@dataclass(frozen=True, slots=True)
class Compared:
    """What the policy proposed beside the incumbent that callers named, over the decisions that count.

    `decisions` are those whose incumbent was a model of the router; in `agreed` of them the two were the same
    model. In a live router the proposal is the model that was chosen. Of `unsupported` one of the two could not
    have been drawn, so no log can tell which of them would have been better. Qualities and costs in USD are
    summed as predicted for the same queries; `rewards` and `calls` are those reported of the incumbent where it
    served.
    """

    decisions: int = 0
    agreed: int = 0
    unsupported: int = 0
    proposed_quality: float = 0.0
    proposed_cost_usd: float = 0.0
    incumbent_quality: float = 0.0
    incumbent_cost_usd: float = 0.0
    rewards: int = 0
    reward_sum: float = 0.0
    calls: int = 0
    cost_sum_usd: float = 0.0

    def entered(self, decision: DecisionRecord) -> Compared:
        """With this decision, which has begun to count."""
        incumbent = _candidate(decision, decision.incumbent_model)
        proposed = _candidate(decision, decision.choice.proposed_model or decision.choice.model)
        if incumbent is None or proposed is None:
            return self
        return replace(
            self,
            decisions=self.decisions + 1,
            agreed=self.agreed + (proposed is incumbent),
            unsupported=self.unsupported + (not (proposed.probability and incumbent.probability)),
            proposed_quality=self.proposed_quality + proposed.quality,
            proposed_cost_usd=self.proposed_cost_usd + proposed.cost_usd,
            incumbent_quality=self.incumbent_quality + incumbent.quality,
            incumbent_cost_usd=self.incumbent_cost_usd + incumbent.cost_usd,
        )

    def reported(self, report: ReportRecord, decision: DecisionRecord) -> Compared:
        """With this report, if it is about an incumbent that served."""
        if report.second or report.subject != decision.incumbent_model:
            return self
        if _candidate(decision, report.subject) is None:
            return self
        rewards, reward_sum = self.rewards, self.reward_sum
        if report.learned_reward is not None:
            rewards += report.replaces_reward is None
            reward_sum += report.learned_reward - (report.replaces_reward or 0.0)
        calls, cost_sum_usd = self.calls, self.cost_sum_usd
        if report.charged_usd is not None:
            calls, cost_sum_usd = calls + 1, cost_sum_usd + report.charged_usd
        return replace(self, rewards=rewards, reward_sum=reward_sum, calls=calls, cost_sum_usd=cost_sum_usd)


def _candidate(decision: DecisionRecord, model: str) -> Candidate | None:
    return next((each for each in decision.choice.candidates if each.model == model), None)
