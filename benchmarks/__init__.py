"""Benchmarks and long proofs; see the README for the commands."""

from voice_llm.cli.environment import let_threads_spin

# Before any of them loads the native library.
let_threads_spin()
