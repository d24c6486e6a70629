-- Second thoughts: a report may be answered again, with the next revision, when a later report shows that it belongs to
-- another incident.  Its first answer stays on record.  A report counts once whatever it was answered, by its first
-- answer; where it is now says the highest revision.

CREATE OR REPLACE VIEW assignments_current AS
SELECT * FROM assignments FINAL
ORDER BY origin, revision DESC
LIMIT 1 BY origin;

CREATE OR REPLACE VIEW reports_by_hour AS
SELECT
    toStartOfHour(event_time, 'UTC') AS hour,
    category,
    source,
    countIf(revision = 0 AND outcome NOT IN ('repeat', 'amended', 'not_an_event')) AS reports,
    countIf(revision = 0 AND outcome = 'repeat') AS repeats,
    countIf(revision = 0 AND outcome = 'amended') AS amended,
    countIf(revision = 0 AND outcome = 'not_an_event') AS not_events,
    countIf(
        revision = 0 AND (outcome = 'opened' OR (outcome = 'late' AND NOT JSONExtractBool(why, 'found')))
    ) AS incidents,
    reports - incidents AS collapsed,
    uniqExactIf(origin, revision > 0) AS corrected
FROM assignments FINAL
GROUP BY hour, category, source
ORDER BY hour, category, source;

CREATE OR REPLACE VIEW freshness AS
SELECT 'incidents' AS of, max(updated_at) AS newest, count() AS rows FROM incidents FINAL
UNION ALL
SELECT 'assignments' AS of, max(event_time) AS newest, uniqExact(origin) AS rows FROM assignments FINAL
UNION ALL
SELECT 'dead_letters' AS of, max(ingested_at) AS newest, count() AS rows FROM dead_letters FINAL;
