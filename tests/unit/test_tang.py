"""What the role makes of a tang server; tang_recorded.json holds what Debian 12's tang, systemd and ss really said.

It was recorded on a lab machine with the public halves of its keys: first with one key for each use, then after
`tangd-rotate-keys`, with one more signing key made by hand.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import tang, tang_checks, tang_host
from ansible_collections.bedplate.llm.plugins.module_utils.tang_checks import Answer

RECORDED = json.loads((Path(__file__).parent / "tang_recorded.json").read_text())
ADDRESSES = ["0.0.0.0", "::"]
URL = "http://10.96.0.21:7654"


def keys_of(name: str) -> list[tang.Key]:
    return [tang.parse_key(one["jwk"], one["file"], "_tang", "_tang") for one in RECORDED[name]["keys"]]


ONE, ROTATED = keys_of("one"), keys_of("rotated")


@pytest.fixture
def server(tmp_path) -> tang_host.Server:
    """What is found on a host whose systemd answers as recorded; of the folder, only owner and mode are made up."""
    answers = {"tangd.socket": RECORDED["socket"], "tangd@bedplate.service": RECORDED["service"]}

    def run(argv):
        return 0, RECORDED["ss"] if argv[0] == "ss" else answers[argv[2]], ""

    (tmp_path / "var/lib/tang").mkdir(parents=True)
    seen = tang_host.look(run, tmp_path)
    return replace(seen, folder=tang_host.Folder("/var/lib/tang", "_tang", "_tang", 0o750), keys=tuple(ONE))


def failing(checks) -> dict[str, str]:
    return {check.id.removeprefix("tang_server."): check.reason for check in checks if not check.ok}


# --- Keys ---


@pytest.mark.parametrize("key", ONE + ROTATED, ids=lambda key: key.file[:8])
def test_a_thumbprint_is_what_tang_itself_calls_the_key(key):
    assert key.file.lstrip(".") == f"{key.thumbprint}.jwk"


def test_a_private_part_is_not_kept():
    jwk = {**RECORDED["one"]["keys"][0]["jwk"], "d": "secret"}
    assert "secret" not in repr(tang.parse_key(jwk)) + repr(tang.parse_key(jwk).as_dict())


@pytest.mark.parametrize(
    ("jwk", "problem"),
    [
        ([], "no elliptic curve key"),
        ({"kty": "oct"}, "no elliptic curve key"),
        ({"kty": "EC", "crv": "P-521", "x": "AA", "alg": "ES512"}, "point is not complete"),
        ({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA", "alg": "ES256K"}, "neither signing nor exchange"),
        ({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA", "key_ops": ["sign", "deriveKey"]}, "neither signing"),
    ],
)
def test_what_is_no_key_of_tang_is_told(jwk, problem):
    with pytest.raises(tang.TangError, match=problem.replace("no elliptic", "not an elliptic")):
        tang.parse_key(jwk)


def test_only_keys_without_a_dot_are_advertised():
    assert [key.use for key in tang.advertised(ROTATED)] == ["signing", "exchange", "signing"]
    assert tang.missing_uses(ROTATED) == []
    assert tang.missing_uses([key for key in ROTATED if key.hidden]) == ["exchange", "signing"]


@pytest.mark.parametrize("names", [[], ["all"], ["A" * 42], ["A" * 42 + "="], [ONE[0].thumbprint, "*"]])
def test_keys_are_named_by_their_thumbprints_alone(names):
    with pytest.raises(tang.TangError, match="thumbprint"):
        tang.require_names(names)


def test_a_rotation_hides_all_that_is_advertised_and_the_named_key_last():
    signing = tang.advertised(ROTATED, tang.SIGNING)
    for named in signing:
        old = tang.plan_rotation(ROTATED, [named.thumbprint])
        assert {key.thumbprint for key in old} == {key.thumbprint for key in tang.advertised(ROTATED)}
        assert old[-1] == named


def test_what_is_hidden_already_or_of_another_server_rotates_nothing():
    hidden = [key.thumbprint for key in ROTATED if key.hidden]
    assert tang.plan_rotation(ROTATED, [*hidden, ONE[0].thumbprint[::-1]]) == []


def test_forgetting_takes_hidden_keys_and_refuses_advertised_ones():
    hidden = [key for key in ROTATED if key.hidden]
    named = [key.thumbprint for key in hidden]
    assert tang.plan_forgetting(ROTATED, named[:1]) == hidden[:1]
    assert tang.plan_forgetting(ONE, [name[::-1] for name in named]) == []
    shown = tang.advertised(ROTATED)[0]
    with pytest.raises(tang.TangError, match=f"key {shown.thumbprint} is advertised, and clients bind to it"):
        tang.plan_forgetting(ROTATED, [*named, shown.thumbprint])


# --- On its host ---


def test_a_server_as_the_role_leaves_it_has_nothing_to_say(server):
    checks = tang_checks.evaluate(server, ADDRESSES, 7654)
    assert failing(checks) == {}
    assert tang_checks.settled(checks)


def test_a_host_without_tang_has_one_thing_to_say():
    def run(argv):
        return 0, RECORDED["absent_service"], ""

    seen = tang_host.look(run)
    assert failing(tang_checks.evaluate(seen, ADDRESSES, 7654)) == {"installed": "The host has no tang."}


DISTRIBUTION = frozenset({"[::]:80"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"socket": {"ActiveState": "failed", "UnitFileState": "enabled"}}, "tangd.socket is failed and enabled."),
        ({"socket": {"ActiveState": "active", "UnitFileState": "disabled"}}, "tangd.socket is active and disabled."),
        (
            {"configured": DISTRIBUTION, "listening": DISTRIBUTION},
            "tangd.socket is to listen on [::]:80 instead of 0.0.0.0:7654, [::]:7654.",
        ),
        (
            {"listening": DISTRIBUTION},
            "tangd.socket was not started again since it changed: port 7654 has nothing.",
        ),
        (
            {"listening": frozenset({"[::]:7654"})},
            "tangd.socket was not started again since it changed: port 7654 has [::]:7654.",
        ),
    ],
)
def test_where_it_does_not_listen_as_declared_is_told(server, change, reason):
    checks = tang_checks.evaluate(replace(server, **change), ADDRESSES, 7654)
    assert failing(checks) == {"listening": reason}
    assert not tang_checks.settled(checks)


def test_other_ports_of_the_host_are_nobodys_business(server):
    more = server.listening | {"0.0.0.0:17654", "127.0.0.1:80"}
    assert failing(tang_checks.evaluate(replace(server, listening=more), ADDRESSES, 7654)) == {}


def test_addresses_are_compared_by_what_they_mean():
    assert tang_checks.endpoints(["FD00:0:0::5", "10.0.0.5"], 7654) == {"[fd00::5]:7654", "10.0.0.5:7654"}
    with pytest.raises(ValueError, match=r"10\.0\.0\.500"):
        tang_checks.endpoints(["10.0.0.500"], 7654)


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        ({"PrivateNetwork": "no"}, "tangd runs without PrivateNetwork=yes."),
        ({"NeedDaemonReload": "yes"}, "tangd runs as it was before its unit changed."),
    ],
)
def test_a_server_that_is_not_confined_is_told(server, service, reason):
    checks = tang_checks.evaluate(replace(server, service={**server.service, **service}), ADDRESSES, 7654)
    assert failing(checks) == {"sandboxed": reason}
    assert not tang_checks.settled(checks)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"mode": 0o444}, "_tang:_tang 0444"),
        ({"mode": 0o640}, "_tang:_tang 0640"),
        ({"mode": 0o040}, "_tang:_tang 0040"),
        ({"owner": "ops"}, "ops:_tang 0440"),
        ({"group": "users"}, "_tang:users 0440"),
    ],
)
def test_a_key_that_is_not_for_tang_alone_is_told(server, change, wrong):
    found = failing(tang_checks.evaluate(replace(server, keys=(replace(ONE[0], **change), ONE[1])), ADDRESSES, 7654))
    assert list(found) == ["keys-private"]
    assert f"{ONE[0].file} ({wrong}) is not for _tang:_tang alone" in found["keys-private"]


@pytest.mark.parametrize(
    ("owner", "group", "mode", "sound"),
    [
        ("_tang", "_tang", 0o750, True),
        ("root", "_tang", 0o750, True),
        ("_tang", "_tang", 0o700, True),
        ("_tang", "_tang", 0o755, False),
        ("_tang", "_tang", 0o770, False),
        ("ops", "_tang", 0o750, False),
        ("_tang", "users", 0o750, False),
    ],
)
def test_a_folder_that_others_can_enter_is_told(server, owner, group, mode, sound):
    folder = tang_host.Folder("/var/lib/tang", owner, group, mode)
    found = failing(tang_checks.evaluate(replace(server, folder=folder), ADDRESSES, 7654))
    assert list(found) == ([] if sound else ["keys-private"])


def test_missing_and_damaged_keys_are_told(server):
    exchange = tang.advertised(ONE, tang.EXCHANGE)
    found = failing(tang_checks.evaluate(replace(server, keys=tuple(exchange)), ADDRESSES, 7654))
    assert found == {"keys": "/var/lib/tang has no signing key that is advertised."}
    found = failing(tang_checks.evaluate(replace(server, broken={"x.jwk": "JSONDecodeError"}), ADDRESSES, 7654))
    assert found == {"keys": "/var/lib/tang/x.jwk is no key: JSONDecodeError."}


def test_where_the_keys_are_is_read_from_the_unit():
    assert tang_host.key_folder(RECORDED["service"].partition("ExecStart=")[2].splitlines()[0]) == "/var/lib/tang"
    with pytest.raises(tang.TangError, match="does not say where the keys are"):
        tang_host.key_folder("{ path=/usr/libexec/tangd ; argv[]=/usr/libexec/tangd -l ; ignore_errors=no }")


# --- From outside ---


def answers(adv: str, **recoveries: Answer):
    """A server that says what the recorded one said, apart from what is given by a thumbprint."""

    def ask(path: str, body: str) -> Answer:
        if path == "/adv":
            assert body == ""
            return Answer(200, adv)
        assert json.loads(body)["alg"] == "ECMR"
        name = path.removeprefix("/rec/")
        return recoveries.get(name) or Answer(200, RECORDED["rec"][name])

    return ask


def test_a_server_that_says_what_its_host_has_is_believed():
    checks = tang_checks.outside(URL, ROTATED, answers(RECORDED["rotated"]["adv"]))
    assert failing(checks) == {}
    assert checks[-1].reason == "The server unlocks with 2 exchange keys, 1 of them hidden."


def test_an_advertisement_is_read_with_one_signature_or_more():
    for name, keys in (("one", ONE), ("rotated", tang.advertised(ROTATED))):
        told = tang.parse_advertisement(RECORDED[name]["adv"])
        assert {key.thumbprint for key in told} == {key.thumbprint for key in keys}


def test_a_server_with_the_keys_of_another_host_is_not_believed():
    found = failing(tang_checks.outside(URL, ROTATED, answers(RECORDED["one"]["adv"])))
    assert list(found) == ["advertises"]
    assert ONE[0].thumbprint in found["advertises"]


def test_a_hidden_key_that_no_longer_unlocks_is_told():
    """The volumes that nobody has bound anew are opened by it alone."""
    [hidden] = [key for key in ROTATED if key.hidden and key.use == tang.EXCHANGE]
    ask = answers(RECORDED["rotated"]["adv"], **{hidden.thumbprint: Answer(404, "")})
    found = failing(tang_checks.outside(URL, ROTATED, ask))
    assert found == {"recovers": f"Volumes cannot be unlocked with {hidden.thumbprint} (HTTP status 404)."}


def test_the_answer_of_another_key_is_no_proof():
    first, second = RECORDED["rec"]
    ask = answers(RECORDED["rotated"]["adv"], **{first: Answer(200, RECORDED["rec"][second])})
    found = failing(tang_checks.outside(URL, ROTATED, ask))
    assert found == {"recovers": f"Volumes cannot be unlocked with {first} (the answer of another key)."}


@pytest.mark.parametrize("text", ["", "<html>", "{}", '{"payload": "e30", "protected": "", "signature": ""}'])
def test_something_else_on_the_port_is_told(text):
    checks = tang_checks.outside(URL, ONE, lambda _path, _body: Answer(200, text))
    assert list(failing(checks)) == ["advertises"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(0, "Connection refused"), f"{URL} gives no answer: Connection refused."),
        (Answer(500, ""), f"{URL} answers with HTTP status 500."),
    ],
)
def test_a_server_that_does_not_answer_is_told(answer, reason):
    checks = tang_checks.outside(URL, ONE, lambda _path, _body: answer)
    assert [check.id for check in checks] == ["tang_server.answers"]
    assert failing(checks) == {"answers": reason}
