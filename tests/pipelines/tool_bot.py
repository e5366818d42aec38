"""A bot with a tool, in the runner's style, for `pipecat eval run`.

A model of 135M parameters does not decide by itself to call a tool, so the first reply is made to be a call.
"""

from __future__ import annotations

import asyncio

from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.evals.transport import EvalTransportParams
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.runner.types import RunnerArguments
from pipecat.runner.utils import create_transport
from pipecat.services.llm_service import FunctionCallParams
from pipecat.transports.base_transport import BaseTransport
from pipecat.workers.runner import WorkerRunner

from voice_llm import Engine
from voice_llm.pipecat import VoiceLLMService

_engine: asyncio.Task[Engine] | None = None


async def engine() -> Engine:
    """Load the engine once."""
    global _engine
    if _engine is None:
        _engine = asyncio.create_task(Engine.load("smollm2_135m_demo"))
    return await asyncio.shield(_engine)


async def claim_status(params: FunctionCallParams) -> None:
    """Say that the claim was paid; what is said next is free."""
    params.context.set_tool_choice("auto")
    await params.result_callback(f"Claim {params.arguments['number']} was paid on Monday.")


async def bot(runner_args: RunnerArguments) -> None:
    """Hold one conversation."""
    transport = await create_transport(runner_args, {"eval": lambda: EvalTransportParams()})
    tool = FunctionSchema(
        name="claim_status",
        description="Look up the status of a claim by its number",
        properties={"number": {"type": "string"}},
        required=["number"],
        handler=claim_status,
    )
    context = LLMContext(tools=[tool], tool_choice="required")
    aggregators = LLMContextAggregatorPair(context)
    llm = VoiceLLMService(engine=await engine(), settings=VoiceLLMService.Settings(temperature=0.0))
    worker = PipelineWorker(
        Pipeline([transport.input(), aggregators.user(), llm, transport.output(), aggregators.assistant()])
    )

    async def end(transport: BaseTransport, client: object) -> None:
        await worker.cancel()

    transport.add_event_handler("on_client_disconnected", end)
    runner = WorkerRunner(handle_sigint=runner_args.handle_sigint)
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    from pipecat.runner.run import main

    main()
