"""``python -m voice_llm.cli``: the command without its script."""

from . import main

main()
