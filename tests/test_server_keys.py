"""A key is recognised by its whole text, kept as a hash, and never good again once it was revoked."""

from __future__ import annotations

import hmac
import re
from dataclasses import replace

import pytest

from server.errors import UnauthenticatedError
from server.keys import ApiKey, KeyRing, Scope, digest_of, new_key_text

NOW_US = 1_700_000_000_000_000


def made(**fields: object) -> tuple[str, ApiKey]:
    key_id, text = new_key_text()
    key = ApiKey(key_id, "", digest_of(text), frozenset({Scope.ROUTE}), NOW_US)
    return text, replace(key, **fields)


def ring_of(*keys: ApiKey) -> KeyRing:
    ring = KeyRing()
    ring.replace(keys)
    return ring


def refused(ring: KeyRing, text: str, now_us: int = NOW_US) -> str:
    with pytest.raises(UnauthenticatedError) as caught:
        ring.authenticate(text, now_us)
    assert len(text) < 10 or text not in caught.value.message
    return caught.value.reason


def test_a_key_has_a_prefix_its_id_and_256_bits_that_no_other_has() -> None:
    keys = [new_key_text() for _ in range(100)]
    for key_id, text in keys:
        assert re.fullmatch(rf"pmk_{key_id}_[0-9a-f]{{64}}", text)
    assert len({text[-64:] for _, text in keys}) == len({key_id for key_id, _ in keys}) == 100


def test_the_key_of_a_text_is_found_among_others() -> None:
    keys = [made() for _ in range(10)]
    ring = ring_of(*(key for _, key in keys))
    assert [ring.authenticate(text, NOW_US) for text, _ in keys] == [key for _, key in keys]


def test_any_other_text_is_no_key() -> None:
    text, key = made()
    ring = ring_of(key)
    other, _ = made()
    last = "0" if text[-1] != "0" else "1"
    for wrong in (
        *("", "pmk_", text[:-1], text + "0", text[:-1] + last, text.upper(), f" {text}", f"{text}\n"),
        *(other, text[:17] + other[17:], other[:17] + text[17:], key.id, key.digest.hex(), "é" * 81),
    ):
        assert refused(ring, wrong) == "KEY_INVALID"


def test_every_text_is_compared_in_constant_time_whether_there_is_such_a_key_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text, key = made()
    unknown, _ = made()
    ring = ring_of(key)
    compare, asked = hmac.compare_digest, []

    def spy(given: bytes, kept: bytes) -> bool:
        same = compare(given, kept)
        asked.append((given, kept, same))
        return same

    monkeypatch.setattr(hmac, "compare_digest", spy)
    wrong_secret = text[:-1] + ("0" if text[-1] != "0" else "1")
    for wrong in (unknown, wrong_secret, "no key at all"):
        assert refused(ring, wrong) == "KEY_INVALID"
    assert ring.authenticate(text, NOW_US) is key
    texts = (unknown, wrong_secret, "no key at all", text)
    assert [given for given, _, _ in asked] == [digest_of(each) for each in texts]
    assert [kept == key.digest for _, kept, _ in asked] == [False, True, False, True]
    assert [len(kept) for _, kept, _ in asked] == [32] * 4
    assert [same for _, _, same in asked] == [False, False, False, True]


def test_only_who_has_the_whole_key_hears_that_it_is_revoked_or_expired() -> None:
    text, revoked = made(revoke_us=NOW_US - 1)
    assert refused(ring_of(revoked), text) == "KEY_REVOKED"
    assert refused(ring_of(revoked), text[:-1] + ("0" if text[-1] != "0" else "1")) == "KEY_INVALID"
    text, short = made(expire_us=NOW_US)
    ring = ring_of(short)
    assert ring.authenticate(text, NOW_US - 1) is short
    assert refused(ring, text, NOW_US) == "KEY_EXPIRED"


def test_without_keys_no_key_is_asked_for_and_from_the_first_on_always() -> None:
    ring = KeyRing()
    assert not ring.locked
    ring.replace([])
    assert not ring.locked
    ring.replace([made(revoke_us=NOW_US)[1]])
    assert ring.locked
    ring.replace([])
    assert ring.locked


def test_a_key_permits_its_routers_or_all() -> None:
    assert made()[1].permits("any")
    bound = made(routers=frozenset({"mine"}))[1]
    assert bound.permits("mine")
    assert not bound.permits("other")
