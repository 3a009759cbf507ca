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

/** The mean reward of the live policy's own decisions, with its interval; null as long as none has settled.
 *
 * Every comparator is held against it on the same events. Of those the one with the most is taken.
 */
export function liveQuality(evaluation) {
  const known = (evaluation.candidates ?? [])
    .filter((each) => each.comparator)
    .map((each) => each.estimates?.find((found) => found.metric === "METRIC_QUALITY"))
    .filter((each) => each?.snips?.live?.value !== undefined && number(each.eventCount) > 0);
  if (!known.length) return null;
  const most = known.reduce((one, other) => (number(other.eventCount) > number(one.eventCount) ? other : one));
  const { value, interval = {} } = most.snips.live;
  return { value, low: interval.low, high: interval.high, events: number(most.eventCount) };
}

/** Why nothing can be said yet of a comparator, in words; `candidate` is undefined where it is not there. */
export function whyUnknown(evaluation, candidate) {
  const { settledCount, pendingCount, requirements } = evaluation;
  if (!number(settledCount)) {
    const waiting = number(pendingCount);
    return waiting ? `no outcome has settled yet: ${waiting.toLocaleString("en")} decisions wait for theirs` : "no decision has been evaluated yet";
  }
  const worth = Math.floor(candidate?.support?.effectiveSampleSize ?? 0);
  return {
    no_propensities: "it cannot be known: the decisions were not drawn with a known probability",
    unsupported: "it cannot be known: the live policy never draws what would have to be compared",
    few_effective: `not known yet: what was decided is worth ${worth.toLocaleString("en")} decisions of its own, and ${number(requirements?.effectiveSampleSizeMin)} are needed`,
  }[candidate?.verdict?.refusal] ?? "not known yet: more rewards are needed";
}

/** What the live policy saves against the incumbent that callers name or else the dearest model.
 *
 * In USD a request, with its interval, and as a share of what the other costs; `why` says what is not known.
 */
export function savings(evaluation) {
  const against = find(evaluation, number(evaluation.incumbentCount) ? "incumbent" : "dearest");
  const cost = estimatesOf(against, "COST_USD");
  if (cost?.difference?.value === undefined) return { why: whyUnknown(evaluation, against) };
  const { value, interval = {} } = cost.difference;
  const theirs = cost.candidate?.value ?? 0;
  return {
    against: against.candidate,
    usd: value,
    low: interval.low,
    high: interval.high,
    share: theirs > 0 ? value / theirs : undefined,
    why: interval.low === undefined ? whyUnknown(evaluation, against) : "",
  };
}

/** What the live policy gains in utility over the best fixed model, with its interval; or `why` it is not known. */
export function lift(evaluation) {
  const fixed = (evaluation.candidates ?? []).filter((each) => each.comparator && each.candidate.startsWith("fixed:"));
  const known = fixed.filter(isKnown);
  if (!known.length) return { why: whyUnknown(evaluation, mostWorth(fixed)) };
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

/** The one of which the decisions tell most. */
function mostWorth(candidates) {
  const worth = (each) => each?.support?.effectiveSampleSize ?? 0;
  return candidates.reduce((one, other) => (worth(other) > worth(one) ? other : one), candidates[0]);
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
