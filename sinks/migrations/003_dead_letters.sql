-- Headers, hash and masked excerpt of what could not be read; never the content.
--
-- Kept 90 days from when the row was written, not from ingested_at: a replayed recording of 2011 would vanish at once.
-- To keep them for another time: ALTER TABLE dead_letters MODIFY TTL written_at + INTERVAL 30 DAY.
CREATE TABLE IF NOT EXISTS dead_letters
(
    origin String,
    reason LowCardinality(String),
    field LowCardinality(Nullable(String)),
    detail String,
    source LowCardinality(String),
    sha256 String,
    size_bytes UInt64,
    excerpt String,
    ingested_at DateTime64(3, 'UTC'),
    service_version LowCardinality(String),
    written_at DateTime MATERIALIZED now()
)
ENGINE = ReplacingMergeTree
ORDER BY (origin, reason)
TTL written_at + INTERVAL 90 DAY;

CREATE VIEW IF NOT EXISTS dead_letters_current AS
SELECT * FROM dead_letters FINAL;
