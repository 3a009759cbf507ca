"""Changes of a part of a model or router: by a field mask, and against what another has changed."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from pointsman.v1 import registry_service_pb2 as pb
from servers import Running, prices, refusal
from test_server_registry_service import DEFAULT, model, update


async def test_without_a_mask_what_is_not_set_stays(server: Running) -> None:
    await server.create_models(a={"prices": (1.0, 2.0, 0.5), "display_name": "A", "capabilities": ["tools"]})
    changed = await update(server, model(prices=prices(input_usd=9.0)))
    assert changed.prices == prices(9.0, 2.0, 0.5)
    assert (changed.display_name, list(changed.capabilities)) == ("A", ["tools"])


async def test_a_mask_of_one_price_leaves_the_others_alone(server: Running) -> None:
    await server.create_models(a={"prices": (1.0, 2.0, 0.5)})
    given = model(prices=prices(0.0, 7.0, 7.0), display_name="not in the mask")
    changed = await update(server, given, "prices.input_usd_per_million_tokens")
    assert changed.prices == prices(0.0, 2.0, 0.5)
    assert changed.display_name == ""


async def test_a_masked_field_that_is_not_set_is_cleared(server: Running) -> None:
    await server.create_models(a={"prices": (1.0, 2.0, 0.5), "capabilities": ["tools"]})
    changed = await update(server, model(), "prices", "capabilities")
    assert changed.prices == prices()
    assert list(changed.capabilities) == []
    router = await server.update_router(objective=pb.Objective(budget_usd_per_request=0.1))
    assert router.objective.HasField("budget_usd_per_request")
    request = pb.UpdateRouterRequest(
        router=pb.Router(name=DEFAULT), update_mask=FieldMask(paths=["objective.budget_usd_per_request"])
    )
    router = (await server.registry.UpdateRouter(request)).router
    assert not router.objective.HasField("budget_usd_per_request")


async def test_the_budget_of_a_day_is_exchanged_for_one_of_a_month_by_a_mask_of_both(server: Running) -> None:
    router = await server.update_router(objective=pb.Objective(budget_usd_per_day=10.0))
    assert router.objective.budget_usd_per_day == 10.0
    month = pb.Router(name=DEFAULT, objective=pb.Objective(budget_usd_per_month=300.0))
    refused = await refusal(server.registry.UpdateRouter(pb.UpdateRouterRequest(router=month)))
    assert (refused.code, refused.fields) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        ["objective.budget_usd_per_month"],
    )
    both = FieldMask(paths=["objective.budget_usd_per_day", "objective.budget_usd_per_month"])
    await server.registry.UpdateRouter(pb.UpdateRouterRequest(router=month, update_mask=both))
    objective = (await server.get_router()).objective
    assert objective.budget_usd_per_month == 300.0
    assert not objective.HasField("budget_usd_per_day")


async def test_a_star_mask_changes_everything_but_the_name(server: Running) -> None:
    await server.create_models(a={"prices": (1.0, 2.0, 0.5), "display_name": "A"})
    changed = await update(server, model(context_window_tokens=5), "*")
    assert (changed.display_name, changed.context_window_tokens) == ("", 5)
    assert changed.prices == prices()
    assert changed.name == f"{DEFAULT}/models/a"


@pytest.mark.parametrize("path", ["colour", "prices.colour", "prices.", "", "display_name.x", "capabilities.x"])
async def test_a_mask_that_names_no_field_is_refused(server: Running, path: str) -> None:
    await server.create_models(a={})
    refused = await refusal(update(server, model(display_name="A"), path))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["update_mask"])
    assert (await server.get_model("a")).display_name == ""


@pytest.mark.parametrize("path", ["reward_rule.signal_weights.key", "session_ttl.seconds", "etag", "statistics"])
async def test_no_mask_makes_the_server_stumble(server: Running, path: str) -> None:
    request = pb.UpdateRouterRequest(
        router=pb.Router(name=DEFAULT, reward_rule={"signal_weights": {"a": 1.0}}, session_ttl={"seconds": 5}),
        update_mask=FieldMask(paths=[path]),
    )
    try:
        await server.registry.UpdateRouter(request)
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.details()


async def test_a_stale_etag_is_aborted_and_the_present_one_is_not(server: Running) -> None:
    await server.create_models(a={})
    old = await server.get_model("a")
    new = await update(server, model(display_name="1", etag=old.etag))
    assert new.etag != old.etag
    name = old.name
    calls = (
        update(server, model(display_name="2", etag=old.etag)),
        server.registry.DeleteModel(pb.DeleteModelRequest(name=name, etag=old.etag)),
        server.update_router(display_name="x", etag="stale"),
    )
    for call in calls:
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "STALE_ETAG")
    assert (await server.get_model("a")).display_name == "1"
    await server.registry.DeleteModel(pb.DeleteModelRequest(name=name, etag=new.etag))
    assert (await refusal(server.registry.GetModel(pb.GetModelRequest(name=name)))).reason == "MODEL_NOT_FOUND"
