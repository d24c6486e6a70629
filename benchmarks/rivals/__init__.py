"""Other ways to decide which reports speak of one event, for `benchmarks.quality`; each fitted with the same care."""
