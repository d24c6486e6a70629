"""Floor 3: Faust, asyncio and the command line.  The only place that imports faust."""
