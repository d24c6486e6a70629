"""Floor 1: messages, city packs, intake, dedupe, incidents.  Pure: no clock, socket, environment or log."""
