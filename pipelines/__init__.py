"""The laboratory: programs that measure lof, and lof against others. Run them from the root of the repository.

Nothing in ``lof`` imports this package, and it is not installed. See ``pipelines/README.md`` for the commands.
"""
