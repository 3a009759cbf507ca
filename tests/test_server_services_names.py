"""Names on the wire stand for ids, and a name of another form is refused by its field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.domain import DEFAULT_ROUTER, InvalidFieldError
from server.services.names import model_name, parse_model, parse_router, router_name, short_model

router_ids = (
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True) | st.just("models") | st.just("routers")
)
model_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._\-/:@]{0,126}", fullmatch=True) | st.just("models/models/x")


def test_names_are_made_of_collections_and_ids() -> None:
    assert router_name("support") == "routers/support"
    assert model_name("support", "openai/gpt-4o") == "routers/support/models/openai/gpt-4o"


def test_no_name_is_the_default_router() -> None:
    assert parse_router("router", "") == DEFAULT_ROUTER == "default"


@given(router_ids)
def test_a_routers_name_comes_back_as_its_id(router_id: str) -> None:
    assert parse_router("router", router_name(router_id)) == router_id


@given(router_ids, model_ids)
def test_a_models_name_comes_back_as_its_ids(router_id: str, model_id: str) -> None:
    name = model_name(router_id, model_id)
    assert parse_model("name", name) == (router_id, model_id)
    assert short_model(router_id, name) == model_id


@pytest.mark.parametrize(
    "name",
    [
        "support",
        "routers/",
        "routers",
        "Routers/support",
        " routers/support",
        "routers/a/b",
        "routers//",
        "models/a",
    ],
)
def test_a_router_of_another_form_is_refused_by_its_field(name: str) -> None:
    with pytest.raises(InvalidFieldError, match=r"^parent: must be 'routers/ROUTER', not ") as caught:
        parse_router("parent", name)
    assert caught.value.field == "parent"
    assert repr(name) in caught.value.message


def test_a_models_name_is_no_routers_name() -> None:
    with pytest.raises(InvalidFieldError):
        parse_router("router", "routers/support/models/gpt-4o")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gpt-4o",
        "support/models/gpt-4o",
        "models/gpt-4o",
        "/models/gpt-4o",
        "routers/support",
        "routers/support/models",
        "routers/support/models/",
        "routers//models/gpt-4o",
        "routers/models/gpt-4o",
        "routers/support/gpt-4o",
        "Routers/support/models/gpt-4o",
    ],
)
def test_a_model_of_another_form_is_refused_by_its_field(name: str) -> None:
    with pytest.raises(
        InvalidFieldError, match=r"^model\.name: must be 'routers/ROUTER/models/MODEL', not "
    ) as caught:
        parse_model("model.name", name)
    assert caught.value.field == "model.name"
    assert repr(name) in caught.value.message


def test_a_router_with_a_slash_is_refused_in_a_models_name_too() -> None:
    with pytest.raises(InvalidFieldError):
        parse_model("name", "routers/a/b/models/gpt-4o")


def test_a_refusal_does_not_repeat_a_name_of_any_length() -> None:
    with pytest.raises(InvalidFieldError) as of_router:
        parse_router("router", "x" * 100_000)
    with pytest.raises(InvalidFieldError) as of_model:
        parse_model("name", "x" * 100_000)
    assert max(len(str(of_router.value)), len(str(of_model.value))) < 300


@pytest.mark.parametrize("model_id", ["gpt-4o", "openai/gpt-4o", "models/gpt-4o", ""])
def test_a_model_may_be_named_by_its_id_alone(model_id: str) -> None:
    assert short_model("support", model_id) == model_id


@pytest.mark.parametrize("router_id", ["other", "support2", "suppor"])
def test_a_model_of_another_router_keeps_its_whole_name(router_id: str) -> None:
    name = model_name(router_id, "gpt-4o")
    assert short_model("support", name) == name
