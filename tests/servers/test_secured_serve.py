"""A gateway and an application, made of stock libraries, hold RAG conversations with a secured ``voice-llm serve``."""

from __future__ import annotations

import asyncio
import datetime
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import openai
import pytest
import trustme

from benchmarks.server_process import ServerProcess
from tests.servers.grpc.gateway import Gateway

pytestmark = pytest.mark.model

FACTS: Final = (
    "The deductible for water damage from a burst pipe is 150 euros. The office opens at eight in the morning."
)
QUESTIONS: Final = (
    "What is the deductible for water damage?",
    "When does the office open?",
    "And what was the amount?",
)
KEY: Final = "a-long-and-random-key-of-acme"


class Secured:
    """A server under mutual TLS and keys, and who may come in."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        server = self.authority.issue_cert("localhost", common_name="server")
        self.authority.cert_pem.write_to_path(folder / "ca.pem")
        (folder / "server.pem").write_bytes(b"".join(pem.bytes() for pem in server.cert_chain_pems))
        server.private_key_pem.write_to_path(folder / "server.key")
        (folder / "keys").write_text(f"acme:{KEY}\n")
        (folder / "keys").chmod(0o600)
        (folder / "clients.json").write_text('{"gateway.example": "acme"}')
        environment = {
            "ENV": "production",
            "GRPC_TLS_CA_PATH": str(folder / "ca.pem"),
            "LLM_LLAMA_SERVICE_CERT_PATH": str(folder / "server.pem"),
            "LLM_LLAMA_SERVICE_KEY_PATH": str(folder / "server.key"),
            "LLM_LLAMA_SERVICE_API_KEYS_FILE": str(folder / "keys"),
            "LLM_LLAMA_SERVICE_CLIENTS_FILE": str(folder / "clients.json"),
        }
        flags = ["--profile", "smollm2_135m_demo", "--calls", "4", "--context-per-call", "2048", "--threads", "1"]
        self.process = ServerProcess(flags, folder / "log", environment=environment)

    @asynccontextmanager
    async def gateway(
        self, name: str = "gateway.example", *, issuer: trustme.CA | None = None, expired: bool = False
    ) -> AsyncIterator[Gateway]:
        """A client of the contract's table, with a certificate of that name."""
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=-1 if expired else 1)
        certificate = (issuer or self.authority).issue_cert(
            name, not_before=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), not_after=ends
        )
        credentials = grpc.ssl_channel_credentials(
            self.authority.cert_pem.bytes(),
            certificate.private_key_pem.bytes(),
            b"".join(pem.bytes() for pem in certificate.cert_chain_pems),
        )
        target = f"localhost:{self.process.grpc.rpartition(':')[2]}"
        async with grpc.aio.secure_channel(target, credentials) as channel:
            yield Gateway(channel, target)

    def application(self, key: str = KEY, **headers: str) -> openai.AsyncOpenAI:
        """The stock client."""
        url = f"http://{self.process.http}/v1"
        return openai.AsyncOpenAI(base_url=url, api_key=key, default_headers=headers, max_retries=0)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    server = Secured(tmp_path_factory.mktemp("secured"))
    with server.process:
        server.process.wait_healthy()
        yield server


async def test_a_gateway_made_of_the_table_holds_a_rag_conversation(secured: Secured) -> None:
    options: dict[str, Any] = {
        "rag_context": FACTS,
        "call_id": "gateway-1",
        "params": {"max_new_tokens": 24, "temperature": 0},
    }
    process = secured.process
    computed_before = process.metric("voice_llm_step_tokens_total", kind="prefill")
    prompt_tokens = []
    async with secured.gateway() as gateway:
        history: list[tuple[str, str]] = []
        for question in QUESTIONS:
            reply = await gateway.ask(question, history=history, **options)
            assert reply.text
            assert reply.reason in ("stop", "length")
            assert reply.completion_tokens > 0
            prompt_tokens.append(reply.prompt_tokens)
            history += [("user", question), ("assistant", reply.text)]
    assert prompt_tokens[-1] > 150, "the third prompt holds both turns before it, with their facts"
    while process.metric("voice_llm_prompt_tokens_total") < sum(prompt_tokens):
        await asyncio.sleep(0.05)  # a scrape may be a second old
    computed = process.metric("voice_llm_step_tokens_total", kind="prefill") - computed_before
    assert computed < prompt_tokens[-1] + 60, "no turn is prefilled twice"


async def test_the_openai_client_holds_a_rag_conversation(secured: Secured) -> None:
    async with secured.application(**{"x-call-id": "app-1"}) as client:
        messages: list[Any] = []
        for turn, question in enumerate(QUESTIONS):
            messages.append({"role": "user", "content": question})
            stream = await client.chat.completions.create(
                model="smollm2_135m_demo",
                messages=messages,
                max_tokens=24,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"rag_context": FACTS},
            )
            pieces, usage = [], None
            async for chunk in stream:
                pieces += [choice.delta.content or "" for choice in chunk.choices]
                usage = chunk.usage or usage
            assert usage is not None
            assert usage.prompt_tokens_details is not None
            assert "".join(pieces)
            if turn:
                assert usage.prompt_tokens - (usage.prompt_tokens_details.cached_tokens or 0) < 40
            messages.append({"role": "assistant", "content": "".join(pieces)})


async def test_certificates_that_do_not_hold_are_refused(secured: Secured) -> None:
    async with secured.gateway(issuer=trustme.CA()) as gateway:
        assert (await gateway.refusal(timeout_s=20)).code() is grpc.StatusCode.UNAVAILABLE
    async with secured.gateway(expired=True) as gateway:
        assert (await gateway.refusal(timeout_s=20)).code() is grpc.StatusCode.UNAVAILABLE
    async with secured.gateway("stranger.example") as gateway:
        assert (await gateway.refusal(timeout_s=20)).code() is grpc.StatusCode.PERMISSION_DENIED
    async with grpc.aio.insecure_channel(secured.process.grpc) as channel:
        gateway = Gateway(channel, secured.process.grpc)
        assert (await gateway.refusal(timeout_s=20)).code() is grpc.StatusCode.UNAVAILABLE


async def test_a_missing_tenant_and_another_ones_are_refused(secured: Secured) -> None:
    async with secured.gateway() as gateway:
        assert (await gateway.refusal(tenant=None)).code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await gateway.refusal(tenant="other")).code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_wrong_key_and_another_tenants_name_are_refused(secured: Secured) -> None:
    question: Any = {"model": "smollm2_135m_demo", "messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 4}
    async with secured.application(key="wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(**question)
    async with secured.application(**{"x-tenant-id": "other"}) as client:
        with pytest.raises(openai.PermissionDeniedError):
            await client.chat.completions.create(**question)


def test_no_key_and_no_word_of_a_caller_is_in_the_log(secured: Secured) -> None:
    log = secured.process.log.read_text()
    assert log
    for secret in (KEY, "wrong", *QUESTIONS, FACTS, "deductible"):
        assert secret not in log


@pytest.mark.parametrize("missing", ["GRPC_TLS_CA_PATH", "LLM_LLAMA_SERVICE_KEY_PATH"])
def test_production_does_not_start_without_mutual_tls(tmp_path: Path, missing: str) -> None:
    files = {name: str(tmp_path / name) for name in ("GRPC_TLS_CA_PATH", "LLM_LLAMA_SERVICE_CERT_PATH")}
    files["LLM_LLAMA_SERVICE_KEY_PATH"] = os.devnull
    for path in files.values():
        Path(path).touch()
    del files[missing]
    with ServerProcess([], tmp_path / "log", environment={"ENV": "production", **files}) as server:
        assert server.process.wait(60) == 2
        assert missing in server.log.read_text()
