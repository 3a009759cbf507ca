"""Routers and models from a file: what is wrong is said with the file and the place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pointsman.v1 import registry_service_pb2 as registry_pb
from servers import Running, running_app
from sqlalchemy import create_engine, select, update

from policy.domain import ModelSpec, ModelState, Prices, RewardJoin
from policy.features import Featuriser
from server.config_file import ConfigError, DeclaredRouter, read_config
from server.storage.schema import routers

EXAMPLE = Path(__file__).parent.parent / "examples" / "models.yaml"
ONE = "routers: {default: {models: {a: {prices: {usd_per_request: %s}}}}}"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "routers.yaml"
    path.write_text(text)
    return path


def declared(tmp_path: Path, text: str) -> list[DeclaredRouter]:
    return read_config(written(tmp_path, text))


def test_the_example_file_loads_and_every_model_has_prices() -> None:
    (router,) = read_config(EXAMPLE)
    assert router.id == "default"
    assert len(router.models) >= 3
    assert all(each.prices.known for each in router.models.values())


async def test_a_server_takes_the_example_file_and_routes_by_it(url: str, featuriser: Featuriser) -> None:
    async with running_app(url, featuriser, read_config(EXAMPLE)) as server:
        answer = await server.route(prompt="hello")
        assert answer.model in read_config(EXAMPLE)[0].models


def test_routers_and_models_are_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """
    routers:
      support:
        policy: fixed:z
        reward_rule: {join_window_seconds: 60, signal_weights: {thumbs: 1}}
        models:
          z: {prices: {input_usd_per_million_tokens: 1.5}, capabilities: [tools], state: disabled}
          a:
      other:
    """
    support, other = declared(tmp_path, text)
    assert list(support.models) == ["z", "a"]
    assert support.models["z"] == ModelSpec(prices=Prices(1.5), capabilities=("tools",), state=ModelState.DISABLED)
    assert support.spec.reward_rule.join_window_seconds == 60.0
    assert (other.id, dict(other.models)) == ("other", {})


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("routers: {default: {colour: red}}", "routers.default.colour"),
        ("routers: {default: {models: {a: {price: 1}}}}", "routers.default.models.a.price"),
        ("routers: {default: {models: {a: {prices: {in: 1}}}}}", "routers.default.models.a.prices.in"),
        ("routers: {default: {models: {a: {prices: {usd_per_request: x}}}}}", "usd_per_request"),
        (ONE % "-1", "routers.default.models.a.prices"),
        (ONE % ".nan", "routers.default.models.a.prices"),
        ("routers: {default: {policy: best}}", "routers.default.policy"),
        ("routers: {default: {learner: magic}}", "routers.default.learner"),
        ("routers: {'bad name': {}}", "routers.bad name"),
        ("routers: {default: {models: {'b c': {}}}}", "routers.default.models.b c"),
        ("routers: {default: {models: [a]}}", "routers.default.models"),
        ("routers: [default]", "routers"),
        ("models: {}", "routers"),
        ("routers: {}\nextra: 1", "routers"),
        ("", "routers"),
        ("- a", "mapping"),
        ("routers: {default: {objective: {budget_usd_per_request: 0}}}", "budget_usd_per_request"),
        ("a: [", "is not YAML"),
        ("routers:\n\tdefault: {}", "is not YAML"),
        ("routers: {default: {models: {a: {}, a: {}}}}", "the key 'a' stands twice"),
        ("routers: {default: {store_prompts: [1]}}", "routers.default.store_prompts"),
        ("a: 2026-13-45", "is not YAML"),
        ("[" * 5000, "is not YAML"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_the_file_and_the_place(
    tmp_path: Path, text: str, place: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        declared(tmp_path, text)
    assert re.match(re.escape(str(tmp_path / "routers.yaml")) + r":1?2?:? ", str(caught.value))
    assert place in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ("    colour: red", 3),
        ("    reward_rule:\n\n      join: best", 5),
        ("    models:\n      gpt-4.1:\n        prices:\n          usd_per_request: .nan", 6),
        ("    models:\n      gpt-4:\n        state: active\n      gpt-4.1:\n        state: gone", 7),
        ("    models:\n      gpt-4.1:\n        state: gone\n      gpt-4:\n        state: active", 5),
        ("    reward_rule: {signal_weights: {x: 1,\n      y: -1}}", 4),
        ("    objective: [1]", 3),
        ("    display_name: 'x", 4),
        ("    policy: &a [*a]", 3),
        ("  other: 1", 3),
        ("extra:", 3),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_line(tmp_path: Path, wrong: str, line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        declared(tmp_path, f"routers:\n  default:\n{wrong}\n")
    assert str(caught.value).startswith(f"{tmp_path / 'routers.yaml'}:{line}: "), caught.value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reward_rule.join_window_seconds", "0"),
        ("reward_rule.join_window_seconds", "soon"),
        ("reward_rule.missing_reward", "2"),
        ("reward_rule.error_reward", "2"),
        ("reward_rule.join", "best"),
        ("reward_rule.signal_weights[thumbs]", "-1"),
        ("embedding_dimensions", "0"),
        ("embedding_dimensions", "many"),
        ("session_ttl_seconds", "-1"),
        ("session_ttl_seconds", "long"),
        ("objective.budget_usd_per_request", "-1"),
        ("objective.budget_usd_per_day", "0"),
        ("objective.budget_usd_per_month", "much"),
        ("objective.latency_usd_per_second", "-1"),
        ("exploration.strength", "-1"),
        ("exploration.burn_in_rewards", "-1"),
        ("mode", "dark"),
        ("store_prompts", "perhaps"),
        ("models.a.prices.usd_per_request", "-1"),
        ("models.a.context_window_tokens", "-1"),
        ("models.a.state", "gone"),
    ],
)
def test_a_key_is_named_as_it_stands_in_the_file(tmp_path: Path, key: str, value: str) -> None:
    nested = value
    for part in reversed(key.replace("[", ".").replace("]", "").split(".")):
        nested = f"{{{part}: {nested}}}"
    with pytest.raises(ConfigError) as caught:
        declared(tmp_path, f"routers: {{default: {nested}}}")
    assert f"{tmp_path / 'routers.yaml'}:1: routers.default.{key}: " in str(caught.value)


@pytest.mark.parametrize(
    "text", ["routers: {default: {session_ttl_seconds: -1}}", "routers: {default: {display_name: %s}}"]
)
def test_a_value_out_of_range_names_the_field_and_no_class_of_ours(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        declared(tmp_path, text.replace("%s", "x" * 300))
    assert re.search("routers.default.(session_ttl|display_name)", str(caught.value))


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x81")
    for name in ("missing.yaml", ".", "binary"):
        with pytest.raises(ConfigError, match=re.escape(str(tmp_path))):
            read_config(tmp_path / name)


async def price_of(server: Running) -> float:
    return (await server.get_model("a")).prices.usd_per_request


async def test_the_file_wins_where_it_has_changed_and_a_later_change_of_ours_stays_where_it_has_not(
    tmp_path: Path, url: str, featuriser: Featuriser
) -> None:
    first, second = declared(tmp_path, ONE % "0.5"), declared(tmp_path, ONE % "0.75")
    async with running_app(url, featuriser, first) as server:
        assert await price_of(server) == 0.5
        model = await server.get_model("a")
        model.prices.usd_per_request = 0.25
        await server.registry.UpdateModel(registry_pb.UpdateModelRequest(model=model))
    async with running_app(url, featuriser, first) as server:
        assert await price_of(server) == 0.25
    async with running_app(url, featuriser, second) as server:
        assert await price_of(server) == 0.75


async def test_a_file_that_an_older_version_took_with_fewer_settings_is_still_the_same(
    tmp_path: Path, url: str, featuriser: Featuriser
) -> None:
    file = declared(tmp_path, "routers: {default: {objective: {quality_value_usd: 0.5}}}")
    async with running_app(url, featuriser, file) as server:
        await server.update_router(objective={"quality_value_usd": 0.25})
    engine = create_engine(url)
    with engine.begin() as connection:
        text = connection.execute(select(routers.c.declared)).scalar_one()
        older = text.replace(',"budget_usd_per_day":null,"budget_usd_per_month":null', "")
        assert older != text
        connection.execute(update(routers).values(declared=older))
    engine.dispose()
    async with running_app(url, featuriser, file) as server:
        assert (await server.get_router()).objective.quality_value_usd == 0.25


def test_a_budget_of_a_month_is_read_from_a_file_and_two_budgets_are_refused(tmp_path: Path) -> None:
    one = "routers: {default: {objective: {budget_usd_per_month: 300}}}"
    assert declared(tmp_path, one)[0].spec.objective.budget_usd_per_month == 300.0
    with pytest.raises(ConfigError, match=r"default\.objective\.budget_usd_per_month: cannot be set beside"):
        declared(tmp_path, one.replace("{budget", "{budget_usd_per_day: 10, budget"))


async def test_a_model_removed_while_serving_stays_removed_if_the_file_is_unchanged(
    tmp_path: Path, url: str, featuriser: Featuriser
) -> None:
    file = declared(tmp_path, "routers: {default: {models: {a: {}, b: {}}}}")
    async with running_app(url, featuriser, file) as server:
        await server.registry.DeleteModel(registry_pb.DeleteModelRequest(name="routers/default/models/a"))
    async with running_app(url, featuriser, file) as server:
        listed = await server.registry.ListModels(registry_pb.ListModelsRequest())
        assert [each.name for each in listed.models] == ["routers/default/models/b"]


@pytest.mark.parametrize("twice", ["a: {}\n      a: {}", "a: {prices: {usd_per_request: 1, usd_per_request: 2}}"])
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, twice: str) -> None:
    with pytest.raises(ConfigError, match=r"routers\.yaml:[45]: .*stands twice"):
        declared(tmp_path, f"routers:\n  default:\n    models:\n      {twice}\n")


def test_the_rule_that_joins_rewards_is_written_in_small_letters(tmp_path: Path) -> None:
    rule = "routers: {default: {reward_rule: {join: %s, signal_weights: {judge: 1, thumbs: 2}}}}"
    (router,) = declared(tmp_path, rule % "weighted")
    assert router.spec.reward_rule.join is RewardJoin.WEIGHTED
    with pytest.raises(ConfigError, match=r"reward_rule\.join"):
        declared(tmp_path, rule % "median")
