"""Floor 2: where outcomes go — ClickHouse, Kafka producers, files, memory."""
