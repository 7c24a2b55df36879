"""What a Workspace can ask for, as the real vLLM takes it: names, parsers, lengths, adapters; and what probes see."""

import json
from typing import Any

import aiohttp
import pytest

from tests.serving.conftest import KEY, Guarded

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def post(guarded: Guarded, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {KEY}"}
    url = f"{guarded.server.url}{path}"
    async with aiohttp.ClientSession(headers=headers) as session, session.post(url, json=body) as answer:
        return answer.status, await answer.json()


async def models(guarded: Guarded) -> dict[str, dict[str, Any]]:
    url = f"{guarded.server.url}/v1/models"
    async with aiohttp.ClientSession(headers={"x-api-key": KEY}) as session, session.get(url) as answer:
        return {entry["id"]: entry for entry in (await answer.json())["data"]}


async def complete(guarded: Guarded, model: str) -> str:
    body = {"model": model, "prompt": "A node of the cluster", "max_tokens": 16, "temperature": 0}
    status, answer = await post(guarded, "/v1/completions", body)
    assert status == 200, answer
    return str(answer["choices"][0]["text"])


async def test_states_are_gone_through_in_order_before_it_is_ready(guarded: Guarded) -> None:
    states = list(dict.fromkeys(said["state"] for said in guarded.seen))

    assert states[-1] == "serving"
    assert states == [state for state in ("starting", "loading", "warming", "serving") if state in states]
    loading = [said for said in guarded.seen if said["state"] == "loading"]
    assert loading
    assert "GiB of weights there" in loading[-1]["progress"]
    assert guarded.seen[-1]["progress"] == ""


async def test_ready_is_a_model_that_has_written_a_token(guarded: Guarded) -> None:
    log = guarded.server.log_text()

    asked, ready = log.index('"POST /v1/completions HTTP/1.1" 200'), log.index("INFO serving tiny")
    assert asked < ready


async def test_it_answers_to_each_of_its_names_and_to_no_other(guarded: Guarded) -> None:
    assert await complete(guarded, "tiny") == await complete(guarded, "small")
    status, answer = await post(guarded, "/v1/completions", {"model": guarded.environment["MODEL"], "prompt": "A"})

    assert status == 404, answer


async def test_the_length_that_was_found_to_fit_is_told(guarded: Guarded) -> None:
    length = (await models(guarded))["tiny"]["max_model_len"]

    assert 0 < length < 2048
    fits, _ = await post(guarded, "/v1/completions", {"model": "tiny", "prompt": [5] * (length - 1), "max_tokens": 1})
    more, _ = await post(guarded, "/v1/completions", {"model": "tiny", "prompt": [5] * length, "max_tokens": 1})
    assert (fits, more) == (200, 400)


async def test_tools_and_reasoning_are_parsed(guarded: Guarded) -> None:
    function = {"name": "look", "parameters": {"type": "object", "properties": {}}}
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "look"}],
        "max_tokens": 4,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "auto",
    }
    status, answer = await post(guarded, "/v1/chat/completions", body)

    # A server without a parser answers 400 to that.
    assert status == 200, answer
    assert "reasoning" in answer["choices"][0]["message"]


async def test_the_users_template_is_used(guarded: Guarded) -> None:
    answers = {}
    for role in ("user", "system"):
        body = {"model": "tiny", "messages": [{"role": role, "content": "look"}], "max_tokens": 1}
        answers[role] = await post(guarded, "/v1/chat/completions", body)

    assert answers["user"][0] == 200, answers
    assert answers["system"][0] == 400, answers
    assert "no system role" in answers["system"][1]["error"]["message"]


async def test_adapters_that_can_be_served_are_and_the_others_are_named(guarded: Guarded) -> None:
    left_out = guarded.seen[-1]["adapters_left_out"]

    assert {name: why.split(":")[0] for name, why in left_out.items()} == {
        "wide": "its rank 640 is larger than 512, the most that vLLM serves",
        "foreign": "it was made for another model",
        "prompts": "it is of type PROMPT_TUNING",
        "odd": "vLLM refuses it",
        "gone": "it has no adapter_config.json",
    }
    assert set(await models(guarded)) == {"tiny", "small", "good", "weak"}
    texts = {name: await complete(guarded, name) for name in ("tiny", "good", "weak")}
    assert len(set(texts.values())) == 3, texts
    log = guarded.server.log_text()
    assert all(f"adapter {name} is left out" in log for name in left_out)


async def test_probes_of_the_program_are_answered(guarded: Guarded) -> None:
    for what in ("started", "alive", "ready"):
        assert await guarded.server.check(what) == (0, "serving\n")


async def test_the_state_is_in_a_file_for_other_processes_of_the_pod(guarded: Guarded) -> None:
    told = json.loads((guarded.server.root / "tmp" / "serving-status.json").read_text())

    assert told["state"] == "serving"
    assert told["instance"] == guarded.seen[-1]["instance"]
