"""What the server that is struck holds: names that exist, and of every message at least one that is right."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from pointsman.v1 import policy_service_pb2 as policy_pb
from pointsman.v1 import policy_service_pb2_grpc as policy_grpc
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import registry_service_pb2_grpc as registry_grpc
from pointsman.v1 import router_service_pb2 as pb
from pointsman.v1 import router_service_pb2_grpc as router_grpc

DEFAULT = "routers/default"
_OTHER = "routers/other"
_SPARE = ("spare-0", "spare-1", "spare-2")
_NEW = ("new-0", "new-1", "new-2")
_MODELS = ("small", "large")
_CANDIDATES = tuple(f"candidate-{number}" for number in range(6))
_SECONDS = 30.0


@dataclass(frozen=True)
class Contents:
    """`known` are texts and bytes that a field may well have, by "Message.field" or the field alone; `right` are
    messages that are so as they are, by the full name of their type.
    """

    known: dict[str, Sequence[Any]]
    right: dict[str, Sequence[Message]]


class Filling:
    """Fills a server, and puts back what requests have changed or taken away. Raises RpcError, TimeoutError."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._router = router_grpc.RouterServiceStub(channel)
        self._registry = registry_grpc.RegistryServiceStub(channel)
        self._policies = policy_grpc.PolicyServiceStub(channel)
        self._file = b""

    def renew(self) -> Contents:
        """The default router is as at first, the other one new, and beside them are a few to be deleted."""
        self._keep_only_default()
        router = _router()
        router.name = DEFAULT
        self._registry.UpdateRouter(registry_pb.UpdateRouterRequest(router=router), timeout=_SECONDS)
        for each in ("other", *_SPARE):
            create = registry_pb.CreateRouterRequest(router_id=each, router=_router())
            self._registry.CreateRouter(create, timeout=_SECONDS)
        for parent, models in ((DEFAULT, _MODELS), (_OTHER, (*_MODELS, *_SPARE))):
            for each in models:
                self._put_model(parent, each)
        for each in _CANDIDATES:
            candidate = policy_pb.Policy(policy="uniform")
            create_policy = policy_pb.CreatePolicyRequest(parent=_OTHER, policy_id=each, policy=candidate)
            self._policies.CreatePolicy(create_policy, timeout=_SECONDS)
        decisions = [self._decision(deferred=number > 1) for number in range(4)]
        self._file = self._file or self._exported()
        chunk = policy_pb.ImportSnapshotRequest(parent=_OTHER, chunk=self._file)
        imported = self._policies.ImportSnapshot(iter([chunk]), timeout=_SECONDS).snapshot.name
        known = _known(self._file, [imported, *self._snapshots()], decisions)
        return Contents(known, _right(self._file, imported, decisions))

    def _keep_only_default(self) -> None:
        while True:
            listed = self._registry.ListRouters(registry_pb.ListRoutersRequest(page_size=1000), timeout=_SECONDS)
            others = [each.name for each in listed.routers if each.name != DEFAULT]
            if not others:
                return
            for each in others:
                self._registry.DeleteRouter(registry_pb.DeleteRouterRequest(name=each), timeout=_SECONDS)

    def _put_model(self, parent: str, model_id: str) -> None:
        create = registry_pb.CreateModelRequest(parent=parent, model_id=model_id, model=_model())
        try:
            self._registry.CreateModel(create, timeout=_SECONDS)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise
            model = _model()
            model.name = f"{parent}/models/{model_id}"
            self._registry.UpdateModel(registry_pb.UpdateModelRequest(model=model), timeout=_SECONDS)

    def _decision(self, *, deferred: bool) -> str:
        request = pb.RouteRequest(prompt="question", session_id="session", defer_activation=deferred)
        decision_id: str = self._router.Route(request, timeout=_SECONDS).decision_id
        if not deferred:
            report = pb.ReportRewardRequest(decision_id=decision_id, report_id="report", reward=0.5)
            self._router.ReportReward(report, timeout=_SECONDS)
        return decision_id

    def _snapshots(self) -> list[str]:
        asked = policy_pb.ListSnapshotsRequest(parent=DEFAULT)
        return [each.name for each in self._policies.ListSnapshots(asked, timeout=_SECONDS).snapshots]

    def _exported(self) -> bytes:
        """The file of a snapshot that the learner has saved, which it does a moment after it has learned."""
        until = time.monotonic() + _SECONDS
        while not (found := self._snapshots()):
            if time.monotonic() > until:
                raise TimeoutError(f"the learner saves no snapshot in {_SECONDS:g} s")
            time.sleep(0.05)
        export = policy_pb.ExportSnapshotRequest(name=found[-1])
        return b"".join(each.chunk for each in self._policies.ExportSnapshot(export, timeout=_SECONDS))


def _router() -> registry_pb.Router:
    return registry_pb.Router()


def _model() -> registry_pb.Model:
    prices = registry_pb.Prices(input_usd_per_million_tokens=1.0, output_usd_per_million_tokens=2.0)
    return registry_pb.Model(prices=prices)


def _known(file: bytes, snapshots: Sequence[str], decisions: Sequence[str]) -> dict[str, Sequence[Any]]:
    routers = [DEFAULT, _OTHER, "routers/none"]
    models = [f"{_OTHER}/models/{each}" for each in (*_MODELS, *_SPARE, "none")]
    policies = [f"{_OTHER}/policies/{each}" for each in (*_CANDIDATES, "none")]
    promotions = [f"{each}/promotionSettings" for each in routers]
    return {
        **{f"{each}.name": routers for each in ("GetRouterRequest", "GetHistoryRequest", "Router")},
        "DeleteRouterRequest.name": [f"routers/{each}" for each in (*_SPARE, "none")],
        **{f"{each}.name": models for each in ("GetModelRequest", "Model")},
        "DeleteModelRequest.name": [f"{_OTHER}/models/{each}" for each in _SPARE],
        **{f"{each}Request.name": policies for each in ("GetPolicy", "RetirePolicy", "PromotePolicy")},
        **{f"{each}.name": promotions for each in ("GetPromotionSettingsRequest", "PromotionSettings")},
        **{f"{each}SnapshotRequest.name": snapshots for each in ("Export", "Restore")},
        "HealthCheckRequest.service": ["", "pointsman.v1.RouterService", "pointsman.v1.evaluation"],
        "parent": routers,
        "router": routers,
        "router_id": ["default", "other", *_NEW],
        "model_id": [*_MODELS, *_NEW],
        "model": [*_MODELS, "none", models[0]],
        "policy_id": [*_CANDIDATES, *_NEW],
        "policy": ["learned", "uniform", "cheapest", "fixed:small", "threshold:large:small:0.2"],
        "decision_id": decisions,
        "request_id": [f"request-{number}" for number in range(5)],
        "session_id": ["session"],
        "etag": ["", "1"],
        "page_token": ["", "other", "1:candidate-0", "0:"],
        "paths": ["objective", "state", "prices", "exploration.kind", "reward_rule", "display_name", "*"],
        "chunk": [file, file[: len(file) // 2], file[len(file) // 2 :]],
    }


def _right(file: bytes, snapshot: str, decisions: Sequence[str]) -> dict[str, Sequence[Message]]:
    """Of each type several where two at a time would be in one another's way."""
    every = [
        *_right_parts(),
        *_right_calls(decisions),
        *_right_registry(),
        *_right_policies(file, snapshot),
        *(health_pb2.HealthCheckRequest(), health_pb2.HealthCheckRequest(service="pointsman.v1.RouterService")),
        health_pb2.HealthListRequest(),  # type: ignore[attr-defined]
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="pointsman.v1.RouterService"),
    ]
    found: dict[str, list[Message]] = {}
    for each in every:
        found.setdefault(each.DESCRIPTOR.full_name, []).append(each)
    return dict(found)


def _right_parts() -> list[Message]:
    return [
        _router(),
        _model(),
        policy_pb.Policy(policy="uniform"),
        policy_pb.Requirements(unsupported_max=0.1, effective_sample_size_min=100.0),
        pb.Usage(input_tokens=10, output_tokens=20),
        pb.ImportedDecision(request_id="imported", prompt="question", model="small", reward=0.5),
        Duration(seconds=60),
        Timestamp(seconds=1_800_000_000),
    ]


def _right_calls(decisions: Sequence[str]) -> list[Message]:
    report = pb.ReportRewardRequest(decision_id=decisions[0], report_id="another", reward=0.5)
    return [
        pb.RouteRequest(prompt="question", max_output_tokens=100),
        pb.RouteRequest(router=_OTHER, request_id="request-0", session_id="session", input_tokens=10),
        report,
        pb.BatchReportRewardsRequest(requests=[report, report]),
        *(pb.ActivateDecisionRequest(decision_id=each) for each in decisions[2:]),
        *(pb.GetDecisionRequest(decision_id=each) for each in decisions[:2]),
        pb.ImportDecisionsRequest(
            router=_OTHER,
            decisions=[pb.ImportedDecision(request_id="first", prompt="question", model="small", reward=0.5)],
        ),
    ]


def _right_registry() -> list[Message]:
    small = f"{_OTHER}/models/small"
    named = registry_pb.Router(name=_OTHER, display_name="other")
    priced = _model()
    priced.name = small
    return [
        *(registry_pb.CreateRouterRequest(router_id=each) for each in _NEW),
        *(registry_pb.GetRouterRequest(name=each) for each in (DEFAULT, _OTHER)),
        registry_pb.ListRoutersRequest(page_size=2),
        registry_pb.UpdateRouterRequest(router=named, update_mask=FieldMask(paths=["display_name"])),
        *(registry_pb.DeleteRouterRequest(name=f"routers/{each}") for each in _SPARE),
        *(registry_pb.GetHistoryRequest(name=each) for each in (DEFAULT, _OTHER)),
        *(registry_pb.CreateModelRequest(parent=_OTHER, model_id=each, model=_model()) for each in _NEW),
        registry_pb.GetModelRequest(name=small),
        registry_pb.ListModelsRequest(parent=_OTHER, page_size=2),
        registry_pb.UpdateModelRequest(model=priced),
        *(registry_pb.DeleteModelRequest(name=f"{_OTHER}/models/{each}") for each in _SPARE),
    ]


def _right_policies(file: bytes, snapshot: str) -> list[Message]:
    first, second, third, *_, last = (f"{_OTHER}/policies/{each}" for each in _CANDIDATES)
    uniform = policy_pb.Policy(policy="uniform")
    settings = policy_pb.PromotionSettings(name=f"{_OTHER}/promotionSettings")
    promote = policy_pb.PromotePolicyRequest
    return [
        *(policy_pb.CreatePolicyRequest(parent=_OTHER, policy_id=each, policy=uniform) for each in _NEW),
        policy_pb.GetPolicyRequest(name=first),
        policy_pb.ListPoliciesRequest(parent=_OTHER, page_size=2),
        *(policy_pb.RetirePolicyRequest(name=each, reason="enough") for each in (second, third)),
        promote(name=first, state=policy_pb.POLICY_STATE_CANARY, canary_share=0.1, force=True, reason="now"),
        promote(name=first, state=policy_pb.POLICY_STATE_SHADOW),
        promote(name=last, state=policy_pb.POLICY_STATE_LIVE, force=True, reason="now"),
        policy_pb.GetPromotionSettingsRequest(name=settings.name),
        policy_pb.UpdatePromotionSettingsRequest(promotion_settings=settings, reason="other"),
        policy_pb.ListTransitionsRequest(parent=_OTHER, page_size=2),
        policy_pb.ListSnapshotsRequest(parent=_OTHER),
        policy_pb.ExportSnapshotRequest(name=snapshot),
        policy_pb.ImportSnapshotRequest(parent=_OTHER, chunk=file),
        policy_pb.RestoreSnapshotRequest(name=snapshot, reason="back"),
        *(policy_pb.GetEvaluationRequest(router=each) for each in (DEFAULT, _OTHER)),
    ]
