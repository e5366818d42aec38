"""The smallest assistant on a VoiceLLMService, for reading: text in, text out.

::

    python pipelines/text_assistant.py
    VOICE_LLM_ENDPOINT=127.0.0.1:16071 python pipelines/text_assistant.py    # on the engine of a `voice-llm serve`
    pipecat eval run scenario.yaml --bot-url ws://localhost:7860/ws
"""

from __future__ import annotations

import asyncio

from pipecat.evals.transport import EvalTransportParams
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.runner.types import RunnerArguments
from pipecat.runner.utils import create_transport
from pipecat.transports.base_transport import BaseTransport
from pipecat.turns.user_turn_strategies import ExternalUserTurnStrategies
from pipecat.workers.runner import WorkerRunner

from voice_llm import Engine
from voice_llm.pipecat import VoiceLLMService
from voice_llm.remote import EngineFace, connect_from_environment

loading: asyncio.Task[EngineFace] | None = None


async def load_engine() -> EngineFace:
    """Use the engine that VOICE_LLM_ENDPOINT names, or load one."""
    return await connect_from_environment() or await Engine.load("smollm2_135m_demo")


async def bot(runner_args: RunnerArguments) -> None:
    """Hold one conversation; the engine is made with the first, for all."""
    global loading
    if loading is None or (loading.done() and loading.exception() is not None):
        loading = asyncio.create_task(load_engine())
    engine = await asyncio.shield(loading)

    transport = await create_transport(runner_args, {"eval": EvalTransportParams})
    llm = VoiceLLMService(engine=engine, settings=VoiceLLMService.Settings(temperature=0.0), eager_turns=False)
    aggregators = LLMContextAggregatorPair(
        LLMContext(), user_params=LLMUserAggregatorParams(user_turn_strategies=ExternalUserTurnStrategies())
    )
    pipeline = Pipeline([transport.input(), aggregators.user(), llm, transport.output(), aggregators.assistant()])
    worker = PipelineWorker(pipeline)

    async def end(transport: BaseTransport, client: object) -> None:
        await worker.cancel()

    transport.add_event_handler("on_client_disconnected", end)

    runner = WorkerRunner(handle_sigint=runner_args.handle_sigint)
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    from pipecat.runner.run import main

    main()
