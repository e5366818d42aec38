"""``sentiric.llm.v1`` as a gateway's authors know it: written down from the contract's table alone."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2
from google.protobuf.message import Message

PACKAGE: Final = "sentiric.llm.v1"
METHOD: Final = f"/{PACKAGE}.LlamaService/GenerateStream"

# Number, name and type of each field; a name of a message stands for itself, "oneof" for the oneof ``type``.
TABLE: Final[dict[str, list[tuple[int, str, str]]]] = {
    "ConversationTurn": [(1, "role", "string"), (2, "content", "string")],
    "GenerationParams": [
        (1, "max_new_tokens", "optional int32"),
        (2, "temperature", "optional float"),
        (3, "top_k", "optional int32"),
        (4, "top_p", "optional float"),
        (5, "repetition_penalty", "optional float"),
        (6, "stop_sequences", "repeated string"),
        (7, "seed", "optional int64"),
        (20, "engine_specific_params", "optional google.protobuf.Struct"),
    ],
    "GenerateStreamRequest": [
        (1, "system_prompt", "string"),
        (2, "user_prompt", "string"),
        (3, "rag_context", "optional string"),
        (4, "history", "repeated ConversationTurn"),
        (5, "params", "optional GenerationParams"),
        (6, "lora_adapter_id", "optional string"),
    ],
    "FinishDetails": [(1, "finish_reason", "string"), (2, "prompt_tokens", "int32"), (3, "completion_tokens", "int32")],
    "GenerateStreamResponse": [(1, "token", "oneof bytes"), (2, "finish_details", "oneof FinishDetails")],
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="gateway.proto", package=PACKAGE, syntax="proto3", dependency=["google/protobuf/struct.proto"]
    )
    for name, fields in TABLE.items():
        message = file.message_type.add(name=name)
        oneofs: list[str] = []
        for number, field_name, declared in fields:
            label, _, kind = declared.rpartition(" ")
            field = message.field.add(name=field_name, number=number, label=3 if label == "repeated" else 1)
            _set_type(field, kind)
            if label == "optional":
                field.proto3_optional = True
                field.oneof_index = len(oneofs)
                oneofs.append(f"_{field_name}")
            elif label == "oneof":
                field.oneof_index = 0
                oneofs = ["type"]
        for oneof in oneofs:
            message.oneof_decl.add(name=oneof)
    return file


def _set_type(field: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
    types = {"double": 1, "float": 2, "int64": 3, "int32": 5, "bool": 8, "string": 9, "bytes": 12}
    if kind in types:
        field.type = types[kind]  # type: ignore[assignment]
        return
    field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
    field.type_name = f".{kind}" if "." in kind else f".{PACKAGE}.{kind}"


_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
_pool.Add(_file())


def message(name: str, **fields: Any) -> Any:
    """A message of the gateway's own making."""
    return kind(name)(**fields)


def kind(name: str) -> type[Message]:
    """A message class of the gateway's own making."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
