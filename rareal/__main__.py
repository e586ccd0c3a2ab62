"""``python -m rareal`` is ``rareal``."""

from rareal.cli import main

main()
