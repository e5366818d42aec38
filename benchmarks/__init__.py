"""Benchmarks and long proofs; see the README for the commands."""
