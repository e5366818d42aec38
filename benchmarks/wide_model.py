"""A model of a few megabytes with random weights and a vocabulary as large as Qwen's: what sampling costs there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import gguf
import numpy as np

N_VOCAB: Final = 151_936
_WIDTH: Final = 32
_HEADS: Final = 2
_FEED_FORWARD: Final = 64


def write_wide_model(path: Path) -> None:
    """Write a one-layer Llama with random weights, whose tokens are plain words, as a GGUF file."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(1024)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(N_VOCAB)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(["<end>", *(f"w{i}" for i in range(1, N_VOCAB))])
    writer.add_token_types([gguf.TokenType.CONTROL, *[gguf.TokenType.NORMAL] * (N_VOCAB - 1)])
    writer.add_token_merges(["w 1"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    chance = np.random.default_rng(0)
    for name, shape in _SHAPES.items():
        writer.add_tensor(f"{name}.weight", chance.normal(0, 1, shape).astype(np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(_WIDTH, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


_SHAPES: Final = {
    "token_embd": (N_VOCAB, _WIDTH),
    **{f"blk.0.attn_{name}": (_WIDTH, _WIDTH) for name in ("q", "k", "v", "output")},
    "blk.0.ffn_gate": (_FEED_FORWARD, _WIDTH),
    "blk.0.ffn_up": (_FEED_FORWARD, _WIDTH),
    "blk.0.ffn_down": (_WIDTH, _FEED_FORWARD),
}
