"""Where a generate callable comes from; each backend is a module of its own, imported by whoever uses it."""
