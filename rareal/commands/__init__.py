"""Commands of the command line that belong together, a module each; `rareal.cli` joins them."""
