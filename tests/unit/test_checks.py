"""Checks travel as dictionaries and come back as the same statement."""

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check, as_dicts, failing, from_dict


def test_a_check_survives_the_way_through_a_module_result():
    check = Check("gateway.rejects-no-token", False, "status 200", "set gateway_jwt_issuer")
    assert from_dict(as_dicts([check])[0]) == check


def test_only_checks_that_do_not_hold_are_failing():
    good, bad = Check("a.b", True, "fine"), Check("a.c", False, "broken")
    assert failing([good, bad]) == [bad]


def test_the_sentence_names_the_check_what_was_found_and_what_to_do():
    assert (
        Check("a.b", False, "port 8443 is taken.", "Stop nginx.").sentence
        == "a.b: port 8443 is taken. Remedy: Stop nginx."
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("text", "a check is a dictionary"),
        ({"id": "a"}, "ok, reason missing"),
        ({"id": "a", "ok": "yes", "reason": "r"}, "ok must be true or false"),
    ],
)
def test_a_value_that_is_no_check_is_refused_in_one_sentence(value, words):
    with pytest.raises(ValueError, match=words):
        from_dict(value)
