"""Has another model score a sample of the answers, after they were given and within a day's money."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from pointsman.v1 import router_service_pb2 as pb

from server.gateway.conversation import Conversation
from server.gateway.judge_books import JudgeBooks, utc_day
from server.gateway.plan import Answer, Plan, Put
from server.gateway.providers import Failure, ProviderError, Providers, TokenPrices
from server.gateway.rubric import judge_messages, read_score, shown_answer, transcript_of
from server.gateway.settings import GatewayConfig, JudgeConfig, SettingError
from server.gateway.usage import answer_of, read_usage

logger = logging.getLogger(__name__)

SIGNAL, SHARE_SIGNAL = "judge", "judge_share"
_WORKERS = 8
# Roles and separators, which are tokens beside those of the texts.
_TOKENS_AROUND = 64


@dataclass(frozen=True)
class _Case:
    """An answer that waits for its judge: texts only, cut to their bounds."""

    router: str
    decision_id: str
    nonce: str
    model: str
    transcript: str
    answer: str


class Judge:
    """Draws by the decision's id, each answer with the same probability whatever it is; works in the background.

    What is not scored: answers past the day's cap or the queue's bound, the judge's own unless it may, and where
    its call fails or says no score. Each is counted in `counts`, by router and outcome. Raises SettingError for a
    judge of which no price is known, since no cap could be held, and for books that cannot be used.
    """

    def __init__(
        self, config: GatewayConfig, providers: Providers, put: Put, day: Callable[[], str] = utc_day
    ) -> None:
        self._providers = providers
        self._put = put
        self._judges = {name: each.judge for name, each in config.routers.items() if each.judge is not None}
        self._prices = {name: self._price(name, each) for name, each in self._judges.items()}
        caps = {name: each.cost_usd_per_day_max for name, each in self._judges.items()}
        path = config.judge_books_file
        self._books = JudgeBooks(path, caps, day) if path is not None and caps else None
        self._waiting: asyncio.Queue[_Case] = asyncio.Queue(config.judge_queue_max)
        self._tasks: list[asyncio.Task[None]] = []
        self.counts: Counter[tuple[str, str]] = Counter()

    def start(self) -> None:
        """Begins to judge, in the running event loop."""
        if self._judges:
            self._tasks = [asyncio.create_task(self._work(), name="gateway-judge") for _ in range(_WORKERS)]

    async def stop(self, grace_seconds: float) -> None:
        """Judges what it can within so many seconds; the rest is not judged, and the log says how much."""
        try:
            async with asyncio.timeout(grace_seconds):
                await self._waiting.join()
        except TimeoutError:
            logger.warning("%d answers or more are left without their judge at the end", self._waiting.qsize())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._books is not None:
            self._books.close()

    async def idle(self) -> None:
        """Returns once nothing waits."""
        await self._waiting.join()

    def consider(self, plan: Plan, talk: Conversation, model: str, answer: Answer) -> None:
        """Draws, and queues what is drawn. Never waits."""
        name = plan.router.removeprefix("routers/")
        judge = self._judges.get(name)
        if judge is None or not plan.decision_id or drawn(plan.decision_id) >= judge.share:
            return
        if not judge.may_judge_itself and self._same(judge.model, model):
            if not self.counts[name, "own"]:
                logger.error(
                    "routers.%s.judge: %s is a candidate too, and its own answers are not judged", name, model
                )
            self.counts[name, "own"] += 1
            return
        if self._waiting.full():
            self.counts[name, "dropped"] += 1
            return
        most = judge.characters_max
        texts = transcript_of(talk, most), shown_answer(answer, most)
        self._waiting.put_nowait(_Case(name, plan.decision_id, plan.nonce, model, *texts))

    def summary(self) -> dict[str, dict[str, object]]:
        """For each router that has a judge: what it has cost today, and what became of the answers drawn since the
        start.
        """
        return {
            name: {
                "model": judge.model,
                "share": judge.share,
                "cost_usd_today": self.spent_usd(name),
                "cost_usd_per_day_max": judge.cost_usd_per_day_max,
                "outcomes": {outcome: count for (each, outcome), count in self.counts.items() if each == name},
            }
            for name, judge in self._judges.items()
        }

    def spent_usd(self, router: str) -> float:
        """What a router's judge has cost today."""
        return self._books.spent_usd(router) if self._books is not None else 0.0

    async def _work(self) -> None:
        while True:
            case = await self._waiting.get()
            try:
                outcome = await self._judge(case)
                self.counts[case.router, outcome] += 1
            except Exception as error:
                # The text of an exception might quote the answer.
                logger.error("a judge failed: %s", type(error).__name__)
                self.counts[case.router, "failed"] += 1
            finally:
                self._waiting.task_done()

    async def _judge(self, case: _Case) -> str:
        """Gives the outcome's name."""
        judge = self._judges[case.router]
        messages = judge_messages(judge.rubric, case.transcript, case.answer, uuid.uuid4().hex)
        # A token is a byte at least: so many there can be, whatever the tokenizer.
        tokens = sum(len(each["content"].encode("utf-8", "replace")) for each in messages) + _TOKENS_AROUND
        most_usd = self._prices[case.router].cost_usd(tokens, judge.output_tokens_max)
        if self._books is None or not self._books.hold(case.router, most_usd):
            return "over_cap"
        cost_usd = most_usd
        try:
            # Not every model takes a temperature.
            wanted = {"max_tokens": judge.output_tokens_max, "temperature": 0, "drop_params": True}
            async with asyncio.timeout(judge.seconds):
                reply = await self._providers.complete(
                    "chat", judge.model, {"messages": messages, **wanted}, judge.seconds
                )
            used = read_usage(reply)
            if used is not None:
                known = self._prices[case.router].cost_usd(used.input_tokens, used.output_tokens)
                cost_usd = used.cost_usd if used.cost_usd is not None else known
        except ProviderError as error:
            # What has not answered in time may be billed all the same.
            cost_usd = most_usd if error.failure is Failure.TIMEOUT else 0.0
            return "failed"
        except TimeoutError:
            return "failed"
        finally:
            self._books.settle(case.router, most_usd, cost_usd)
        score = read_score(answer_of(reply).text)
        if score is None:
            return "unreadable"
        self._report(case, judge, score)
        return "judged"

    def _report(self, case: _Case, judge: JudgeConfig, score: float) -> None:
        report = pb.ReportRewardRequest(
            decision_id=case.decision_id, report_id=f"gateway-{case.nonce}-judge", served_model=case.model
        )
        report.signals.update({SIGNAL: score, SHARE_SIGNAL: judge.share})
        self._put(report)

    def _same(self, one: str, other: str) -> bool:
        """Whether two names are one model of the provider."""
        return self._providers.target(one).litellm_model == self._providers.target(other).litellm_model

    def _price(self, router: str, judge: JudgeConfig) -> TokenPrices:
        told = judge.input_usd_per_million_tokens, judge.output_usd_per_million_tokens
        if told[0] is not None and told[1] is not None:
            return TokenPrices(told[0] / 1e6, told[1] / 1e6)
        known = self._providers.prices(judge.model)
        if known is None:
            raise SettingError(
                f"routers.{router}.judge: no price is known of {judge.model}, so that no cap could be held: give "
                "input_usd_per_million_tokens and output_usd_per_million_tokens"
            )
        return known


def drawn(decision_id: str) -> float:
    """A number in [0, 1) that belongs to the decision, and has nothing to do with what was answered."""
    digest = hashlib.blake2b(decision_id.encode(), digest_size=8, person=b"judge").digest()
    return int.from_bytes(digest, "big") / (1 << 64)
