// What the numbers of the API come to: sums and comparisons, without a page.

import { number } from "./format.js";

/** The mean of all rewards learned, and how many they are. */
export function meanReward(models) {
  const rewards = models.reduce((sum, each) => sum + number(each.statistics?.rewardCount), 0);
  const total = models.reduce((sum, { statistics: s }) => sum + number(s?.meanReward) * number(s?.rewardCount), 0);
  return { value: rewards ? total / rewards : undefined, rewards };
}

/** The decisions whose window has closed, and the share of them that closed without a reward. */
export function missingRewards(models) {
  const closed = models.reduce((sum, each) => sum + number(each.statistics?.closedCount), 0);
  const missing = models.reduce(
    (sum, { statistics: s }) => sum + number(s?.closedCount) * number(s?.missingRewardRate),
    0,
  );
  return { closed, rate: closed ? missing / closed : undefined };
}

/** Which budget a router has: its kind, the sum, and what is spent of it in which period. */
export function budgetOf(router) {
  const { objective = {}, statistics = {} } = router;
  const utilization = number(statistics.utilization);
  if (objective.budgetUsdPerRequest !== undefined) {
    return { kind: "request", usd: objective.budgetUsdPerRequest, utilization };
  }
  const kind = objective.budgetUsdPerDay === undefined ? "month" : "day";
  const usd = objective.budgetUsdPerDay ?? objective.budgetUsdPerMonth;
  if (usd === undefined) return null;
  return {
    kind,
    usd,
    utilization,
    periodUsd: statistics.periodBudgetUsd ?? usd,
    spentUsd: number(statistics.periodSpentUsd),
    nextUsd: number(statistics.periodBudgetPerRequestUsd),
  };
}

/** The estimates of a candidate by a metric ("COST_USD"), by the method that the league is by. */
export function estimatesOf(candidate, metric) {
  return candidate?.estimates?.find((each) => each.metric === `METRIC_${metric}`)?.adr;
}

/** What the live policy saves against the incumbent that callers name or else the dearest model; null if unknown.
 *
 * In USD a request, with its interval, and as a share of what the other costs.
 */
export function savings(evaluation) {
  const against = find(evaluation, number(evaluation.incumbentCount) ? "incumbent" : "dearest");
  const cost = estimatesOf(against, "COST_USD");
  if (cost?.difference?.value === undefined) return null;
  const { value, interval = {} } = cost.difference;
  const theirs = cost.candidate?.value ?? 0;
  return {
    against: against.candidate,
    usd: value,
    low: interval.low,
    high: interval.high,
    share: theirs > 0 ? value / theirs : undefined,
    refusal: against.verdict?.refusal ?? "",
  };
}

/** What the live policy gains in utility over the best fixed model, with its interval; null if unknown. */
export function lift(evaluation) {
  const known = (evaluation.candidates ?? []).filter(
    (each) => each.comparator && each.candidate.startsWith("fixed:") && isKnown(each),
  );
  if (!known.length) return null;
  const best = known.reduce((one, other) => (utility(other) > utility(one) ? other : one));
  const gain = negated(estimatesOf(best, "UTILITY").difference);
  const ofQuality = estimatesOf(best, "QUALITY")?.difference;
  return {
    model: best.candidate.slice("fixed:".length),
    ...gain,
    quality: ofQuality?.value === undefined ? undefined : negated(ofQuality),
  };
}

function find(evaluation, name) {
  return evaluation.candidates?.find((each) => each.comparator && each.candidate === name);
}

function isKnown(candidate) {
  const found = estimatesOf(candidate, "UTILITY")?.difference;
  return found?.value !== undefined && found.interval?.low !== undefined;
}

function utility(candidate) {
  return estimatesOf(candidate, "UTILITY").difference.value;
}

function negated({ value, interval = {} }) {
  const turned = (end) => (end === undefined ? undefined : -end);
  return { value: -value, low: turned(interval.high), high: turned(interval.low) };
}
