-- One row per answer to one report; redelivery writes the same row again and changes nothing.
--
-- Partitioned by month, so that old months can be dropped and a range of time reads only its months.  That does not
-- break the key: an origin names one message, whose event time never changes, so all rows of a key share a partition.
-- `why` is the JSON object as decided, its terms differ from rule to rule.
CREATE TABLE IF NOT EXISTS assignments
(
    origin String,
    revision UInt32,
    source LowCardinality(String),
    report_id String,
    event_time DateTime64(3, 'UTC'),
    incident_id Nullable(String),
    outcome LowCardinality(String),
    score Nullable(Int64),
    distance_m Nullable(Float64),
    gap_s Nullable(Float64),
    category LowCardinality(String),
    why String,
    INDEX by_incident incident_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_report report_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(event_time)
ORDER BY (origin, revision);

CREATE VIEW IF NOT EXISTS assignments_current AS
SELECT * FROM assignments FINAL;
