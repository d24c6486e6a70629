-- One row per state written; the state that stands is the one with the highest ordinal, read with FINAL.
--
-- Two states of one version differ when a repeat raised repeat_count (it does not raise version), so the ordinal is
-- (version, repeat_count).  Among rows with an equal ordinal ReplacingMergeTree keeps the one inserted last.  With
-- version alone, a worker that lost its partitions but is still retrying an old insert could put an older
-- repeat_count over a newer one, and nothing would correct it.
CREATE TABLE IF NOT EXISTS incidents
(
    incident_id String,
    version UInt32,
    status LowCardinality(String),
    category LowCardinality(String),
    category_name LowCardinality(String),
    priority UInt8,
    department LowCardinality(String),
    grid_code Nullable(String),
    community_code LowCardinality(Nullable(String)),
    street_code LowCardinality(Nullable(String)),
    county_code LowCardinality(Nullable(String)),
    lon Nullable(Float64),
    lat Nullable(Float64),
    accuracy_m Nullable(Float64),
    opened_at DateTime64(3, 'UTC'),
    first_report_at DateTime64(3, 'UTC'),
    last_report_at DateTime64(3, 'UTC'),
    updated_at DateTime64(3, 'UTC'),
    closed_at Nullable(DateTime64(3, 'UTC')),
    report_count UInt32,
    repeat_count UInt32,
    sources Map(LowCardinality(String), UInt32),
    witness_count Nullable(UInt32),
    confidence Nullable(Float64),
    sla_due_at Nullable(DateTime64(3, 'UTC')),
    overdue Nullable(Bool),
    merged_into Nullable(String),
    recurrence_of Nullable(String),
    pack_version LowCardinality(String),
    evidence Array(Tuple(source LowCardinality(String), report_id String)),
    ordinal UInt64 MATERIALIZED bitOr(bitShiftLeft(toUInt64(version), 32), toUInt64(repeat_count))
)
ENGINE = ReplacingMergeTree(ordinal)
ORDER BY incident_id;

CREATE VIEW IF NOT EXISTS incidents_current AS
SELECT * FROM incidents FINAL;
