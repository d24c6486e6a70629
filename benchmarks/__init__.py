"""Programs that measure; each says in its docstring what."""
