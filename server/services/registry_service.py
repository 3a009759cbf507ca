"""RegistryService: routers and models on the wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from pointsman.v1 import registry_service_pb2 as pb
from pointsman.v1 import registry_service_pb2_grpc as pb_grpc

from policy.books import Explored
from policy.domain import InvalidFieldError, Model, Objective
from policy.second_calls import SecondCalls
from policy.shadow import Compared
from policy.view import ModelRecord, PolicyView
from server.errors import ModelNotFoundError, RouterNotFoundError, StaleEtagError
from server.keys import permitted_routers
from server.registry import Registry, RouterEntry, Stamp
from server.services.histories import asked_for, history_to_proto
from server.services.names import model_name, parse_model, parse_router, router_name
from server.services.pages import page_of
from server.services.specs import (
    model_spec_from_proto,
    model_spec_to_proto,
    router_spec_from_proto,
    router_spec_to_proto,
    wire_fields,
)
from server.services.status import Context, translated
from server.services.times import timestamp
from server.usecases.change_registry import ChangeRegistry
from server.usecases.get_history import GetHistory
from server.views import Views

_UPDATE_ATTEMPTS = 20
_MASK_PATHS_MAX = 100
_OUTPUT_ONLY = frozenset({"name", "etag", "create_time", "update_time", "statistics"})

AnyMessage = TypeVar("AnyMessage", bound=Message)


class RegistryService(pb_grpc.RegistryServiceServicer):
    """Translates; ChangeRegistry changes."""

    def __init__(self, registry: Registry, views: Views, change: ChangeRegistry, get_history: GetHistory) -> None:
        self._registry = registry
        self._views = views
        self._change = change
        self._get_history = get_history

    @translated
    async def CreateRouter(self, request: pb.CreateRouterRequest, context: Context) -> pb.CreateRouterResponse:
        """Creates a router."""
        spec = router_spec_from_proto(request.router)
        with wire_fields():
            entry = await self._change.put_router(request.router_id, spec, create=True)
        return pb.CreateRouterResponse(router=self._router(entry))

    @translated
    async def GetRouter(self, request: pb.GetRouterRequest, context: Context) -> pb.GetRouterResponse:
        """Reads a router."""
        return pb.GetRouterResponse(router=self._router(self._entry("name", request.name)))

    @translated
    async def ListRouters(self, request: pb.ListRoutersRequest, context: Context) -> pb.ListRoutersResponse:
        """Lists routers."""
        permitted = permitted_routers()
        entries = [each for each in self._registry.entries() if permitted is None or each.router.id in permitted]
        page, token = page_of(entries, [each.router.id for each in entries], request.page_size, request.page_token)
        return pb.ListRoutersResponse(routers=[self._router(each) for each in page], next_page_token=token)

    @translated
    async def UpdateRouter(self, request: pb.UpdateRouterRequest, context: Context) -> pb.UpdateRouterResponse:
        """Changes a router."""

        async def update() -> RouterEntry:
            entry = self._entry("router.name", request.router.name)
            _require_etag(request.router.name, request.router.etag, entry.stamp)
            merged = router_spec_to_proto(entry.router.spec)
            _merge(request.router, merged, request.update_mask)
            spec = router_spec_from_proto(merged)
            revision = entry.stamp.revision
            with wire_fields():
                return await self._change.put_router(entry.router.id, spec, create=False, revision=revision)

        changed = await _until_not_overtaken(update, request.router.etag)
        return pb.UpdateRouterResponse(router=self._router(changed))

    @translated
    async def DeleteRouter(self, request: pb.DeleteRouterRequest, context: Context) -> pb.DeleteRouterResponse:
        """Deletes a router."""
        entry = self._entry("name", request.name)
        _require_etag(request.name, request.etag, entry.stamp)
        await self._change.delete_router(entry.router.id, entry.stamp.revision if request.etag else None)
        return pb.DeleteRouterResponse()

    @translated
    async def GetHistory(self, request: pb.GetHistoryRequest, context: Context) -> pb.GetHistoryResponse:
        """Reads what a router did over time."""
        router_id = parse_router("name", request.name)
        history = await self._get_history(router_id, *asked_for(request))
        return pb.GetHistoryResponse(history=history_to_proto(router_id, history))

    @translated
    async def CreateModel(self, request: pb.CreateModelRequest, context: Context) -> pb.CreateModelResponse:
        """Adds a model."""
        router_id = parse_router("parent", request.parent)
        spec = model_spec_from_proto(request.model)
        entry = await self._change.put_model(router_id, request.model_id, spec, create=True)
        return pb.CreateModelResponse(model=self._model(entry, entry.by_id[request.model_id]))

    @translated
    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Reads a model."""
        return pb.GetModelResponse(model=self._model(*self._member("name", request.name)))

    @translated
    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """Lists a router's models."""
        entry = self._entry("parent", request.parent or "routers/default")
        models = sorted(entry.router.models, key=lambda model: model.id)
        page, token = page_of(models, [each.id for each in models], request.page_size, request.page_token)
        return pb.ListModelsResponse(models=[self._model(entry, each) for each in page], next_page_token=token)

    @translated
    async def UpdateModel(self, request: pb.UpdateModelRequest, context: Context) -> pb.UpdateModelResponse:
        """Changes a model."""

        async def update() -> RouterEntry:
            entry, model = self._member("model.name", request.model.name)
            stamp = entry.model_stamps[model.id]
            _require_etag(request.model.name, request.model.etag, stamp)
            merged = model_spec_to_proto(model.spec)
            _merge(request.model, merged, request.update_mask)
            spec, revision = model_spec_from_proto(merged), stamp.revision
            return await self._change.put_model(entry.router.id, model.id, spec, create=False, revision=revision)

        changed = await _until_not_overtaken(update, request.model.etag)
        _, model_id = parse_model("model.name", request.model.name)
        return pb.UpdateModelResponse(model=self._model(changed, changed.by_id[model_id]))

    @translated
    async def DeleteModel(self, request: pb.DeleteModelRequest, context: Context) -> pb.DeleteModelResponse:
        """Removes a model."""
        entry, model = self._member("name", request.name)
        stamp = entry.model_stamps[model.id]
        _require_etag(request.name, request.etag, stamp)
        await self._change.delete_model(entry.router.id, model.id, stamp.revision if request.etag else None)
        return pb.DeleteModelResponse()

    def _entry(self, field: str, name: str) -> RouterEntry:
        if not name:
            raise InvalidFieldError(field, "must be 'routers/ROUTER'")
        router_id = parse_router(field, name)
        entry = self._registry.entry(router_id)
        if entry is None:
            raise RouterNotFoundError(router_id)
        return entry

    def _member(self, field: str, name: str) -> tuple[RouterEntry, Model]:
        router_id, model_id = parse_model(field, name)
        entry = self._entry(field, router_name(router_id))
        model = entry.model(model_id)
        if model is None:
            raise ModelNotFoundError(router_id, model_id)
        return entry, model

    def _router(self, entry: RouterEntry) -> pb.Router:
        message = router_spec_to_proto(entry.router.spec)
        message.name = router_name(entry.router.id)
        _stamp(message, entry.stamp)
        view = self._views.get(entry.router)
        message.statistics.CopyFrom(_router_statistics(view, entry.router.spec.objective))
        return message

    def _model(self, entry: RouterEntry, model: Model) -> pb.Model:
        message = model_spec_to_proto(model.spec)
        message.name = model_name(entry.router.id, model.id)
        _stamp(message, entry.model_stamps[model.id])
        record = self._views.get(entry.router).models.get(model.key) or ModelRecord()
        message.statistics.CopyFrom(_model_statistics(record))
        return message


def _router_statistics(view: PolicyView, objective: Objective) -> pb.RouterStatistics:
    statistics = pb.RouterStatistics(
        decision_count=view.router.decisions,
        reward_count=view.router.rewards,
        spent_usd=view.router.spent_usd,
        utilization=view.utilization(objective),
        price_of_money=view.price_of_money(objective),
        snapshot=str(view.snapshot),
        exploration=_exploration_statistics(view.router.explored),
        shadow=_shadow_statistics(view.router.compared),
        imported_decision_count=view.router.imported,
        paid_shadow=_paid_shadow_statistics(view.router.second),
    )
    standing = view.standing
    # The learner may have yet to hear that the budget is of another kind now.
    if standing is not None and objective.period_budget:
        statistics.period_start_time.CopyFrom(timestamp(standing.start_us))
        statistics.period_budget_usd = standing.budget_usd
        statistics.period_spent_usd = standing.spent_usd
        statistics.period_budget_per_request_usd = standing.per_request_usd
    return statistics


def _model_statistics(record: ModelRecord) -> pb.ModelStatistics:
    return pb.ModelStatistics(
        decision_count=record.decisions,
        reward_count=record.rewards,
        closed_count=record.closed,
        missing_reward_rate=_mean(record.missing, record.closed),
        mean_reward=_mean(record.reward_sum, record.rewards),
        mean_cost_usd=_mean(record.cost_sum_usd, record.calls_charged),
        mean_latency_seconds=record.latency_seconds,
        error_count=record.errors,
        healthy=record.circuit.closed,
        exploration=_exploration_statistics(record.explored),
        imported_decision_count=record.imported,
    )


def _exploration_statistics(explored: Explored) -> pb.ExplorationStatistics:
    return pb.ExplorationStatistics(
        decision_count=explored.decisions,
        cost_usd=explored.cost_usd,
        quality=explored.quality,
        utility=explored.utility,
    )


def _shadow_statistics(compared: Compared) -> pb.ShadowStatistics:
    return pb.ShadowStatistics(
        decision_count=compared.decisions,
        agreement_count=compared.agreed,
        unsupported_count=compared.unsupported,
        proposed_mean_quality=_mean(compared.proposed_quality, compared.decisions),
        proposed_mean_cost_usd=_mean(compared.proposed_cost_usd, compared.decisions),
        incumbent_mean_quality=_mean(compared.incumbent_quality, compared.decisions),
        incumbent_mean_cost_usd=_mean(compared.incumbent_cost_usd, compared.decisions),
        observed_reward_count=compared.rewards,
        observed_mean_reward=_mean(compared.reward_sum, compared.rewards),
        observed_call_count=compared.calls,
        observed_mean_cost_usd=_mean(compared.cost_sum_usd, compared.calls),
    )


def _paid_shadow_statistics(second: SecondCalls) -> pb.PaidShadowStatistics:
    return pb.PaidShadowStatistics(
        offer_count=second.offers,
        call_count=second.calls,
        capped_count=second.capped,
        reward_count=second.rewards,
        charged_count=second.charged,
        spent_usd=second.spent_usd,
        untold_count=second.untold,
    )


def _mean(total: float, count: int) -> float:
    return total / count if count else 0.0


async def _until_not_overtaken(update: Callable[[], Awaitable[RouterEntry]], etag: str) -> RouterEntry:
    """Reads, merges and writes again where another change came in between, unless the caller holds an etag."""
    for _ in range(_UPDATE_ATTEMPTS - 1):
        try:
            return await update()
        except StaleEtagError:
            if etag:
                raise
    return await update()


def _stamp(message: pb.Router | pb.Model, stamp: Stamp) -> None:
    message.etag = str(stamp.revision)
    message.create_time.CopyFrom(timestamp(stamp.create_us))
    message.update_time.CopyFrom(timestamp(stamp.update_us))


def _require_etag(name: str, etag: str, stamp: Stamp) -> None:
    if etag and etag != str(stamp.revision):
        raise StaleEtagError(name)


def _merge(source: AnyMessage, target: AnyMessage, mask: FieldMask) -> None:
    """Takes over the masked fields; without a mask those that are set, down to single values."""
    descriptor = source.DESCRIPTOR
    if len(mask.paths) > _MASK_PATHS_MAX:
        raise InvalidFieldError("update_mask", f"must be at most {_MASK_PATHS_MAX} paths")
    paths = list(mask.paths) or _set_paths(source)
    if "*" in paths:
        paths = [each.name for each in descriptor.fields]
    paths = [path for path in paths if path.split(".")[0] not in _OUTPUT_ONLY]
    chosen = FieldMask(paths=paths)
    if not all(_is_field(descriptor, path) for path in paths):
        bad = next(path for path in paths if not _is_field(descriptor, path))
        raise InvalidFieldError("update_mask", f"has no field {bad[:80]!r}")
    # Clearing first makes a masked field that is unset in the source unset in the target.
    chosen.MergeMessage(source, target, replace_message_field=True, replace_repeated_field=True)
    for path in paths:
        _clear_if_unset(source, target, path.split("."))


def _set_paths(message: Message, prefix: str = "") -> list[str]:
    paths = []
    for each, value in message.ListFields():
        kind = None if each.is_repeated else each.message_type
        if kind is not None and not kind.full_name.startswith("google.protobuf."):
            paths += _set_paths(value, f"{prefix}{each.name}.")
        else:
            paths.append(prefix + each.name)
    return paths


def _is_field(descriptor: Any, path: str) -> bool:
    for name in path.split("."):
        each = descriptor.fields_by_name.get(name) if descriptor is not None else None
        if each is None:
            return False
        descriptor = None if each.is_repeated else each.message_type
    return True


def _clear_if_unset(source: Message, target: Message, path: list[str]) -> None:
    *parents, last = path
    for name in parents:
        source, target = getattr(source, name), getattr(target, name)
    each = source.DESCRIPTOR.fields_by_name[last]
    if each.has_presence and not source.HasField(last):
        target.ClearField(last)
