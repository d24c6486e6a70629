-- What a city asks of its day, as views.  Raw and merged counts stand side by side, for merging changes both of the
-- figures that departments are measured by.  streams/figures.py says the same in plain Python, and a test compares.
--
-- "In work" is neither closed nor rejected.  Hours are UTC, by event time.  A report is counted by its first answer
-- (revision 0): `reports` are those that are neither the same message again (`repeats`) nor about no event
-- (`not_events`); `incidents` those that founded one; `collapsed` the others.

-- Incidents in work by the code of each level of the main grid, and of the city for what has no position.
CREATE OR REPLACE VIEW open_by_level AS
SELECT
    at.1 AS level,
    at.2 AS code,
    count() AS incidents,
    countIf(priority = 1) AS urgent,
    min(opened_at) AS oldest_opened_at
FROM incidents FINAL
ARRAY JOIN arrayFilter(
    at -> at.2 IS NOT NULL OR (at.1 = 'city' AND grid_code IS NULL),
    [
        ('city', CAST(NULL, 'Nullable(String)')),
        ('county', CAST(county_code, 'Nullable(String)')),
        ('street', CAST(street_code, 'Nullable(String)')),
        ('community', CAST(community_code, 'Nullable(String)'))
    ]
) AS at
WHERE status NOT IN ('closed', 'rejected')
GROUP BY level, code
ORDER BY level, code;

-- Incidents in work by the finest cell that covers them.
CREATE OR REPLACE VIEW open_by_cell AS
SELECT
    grid_code,
    count() AS incidents,
    countIf(priority = 1) AS urgent,
    min(opened_at) AS oldest_opened_at
FROM incidents FINAL
WHERE status NOT IN ('closed', 'rejected') AND grid_code IS NOT NULL
GROUP BY grid_code
ORDER BY grid_code;

-- Incidents in work by category and the department that they fall to, and how far each has come.
CREATE OR REPLACE VIEW open_by_category AS
SELECT
    category,
    any(category_name) AS category_name,
    department,
    countIf(status = 'open') AS open,
    countIf(status = 'accepted') AS accepted,
    countIf(status = 'dispatched') AS dispatched,
    countIf(status = 'disposed') AS disposed,
    count() AS incidents,
    min(opened_at) AS oldest_opened_at
FROM incidents FINAL
WHERE status NOT IN ('closed', 'rejected')
GROUP BY category, department
ORDER BY category, department;

-- Raw and merged counts by hour, category and source of the report.
CREATE OR REPLACE VIEW reports_by_hour AS
SELECT
    toStartOfHour(event_time, 'UTC') AS hour,
    category,
    source,
    countIf(outcome NOT IN ('repeat', 'not_an_event')) AS reports,
    countIf(outcome = 'repeat') AS repeats,
    countIf(outcome = 'not_an_event') AS not_events,
    countIf(outcome = 'opened' OR (outcome = 'late' AND NOT JSONExtractBool(why, 'found'))) AS incidents,
    reports - incidents AS collapsed
FROM assignments FINAL
WHERE revision = 0
GROUP BY hour, category, source
ORDER BY hour, category, source;

-- From the founding report's event time to the closing's, closed incidents only, whole seconds.
CREATE OR REPLACE VIEW time_to_close AS
SELECT
    category,
    any(category_name) AS category_name,
    department,
    count() AS closed,
    quantileExact(0.5)(dateDiff('second', opened_at, assumeNotNull(closed_at))) AS median_s,
    quantileExact(0.9)(dateDiff('second', opened_at, assumeNotNull(closed_at))) AS p90_s
FROM incidents FINAL
WHERE status = 'closed' AND closed_at IS NOT NULL
GROUP BY category, department
ORDER BY category, department;

-- What came again after it had ended: reports that reopened an incident, incidents that are a recurrence of a former.
CREATE OR REPLACE VIEW came_again AS
SELECT category, sum(reopenings) AS reopened, sum(recurrences) AS recurred
FROM
(
    SELECT category, count() AS reopenings, 0 AS recurrences
    FROM assignments FINAL
    WHERE revision = 0 AND JSONExtractString(why, 'rule') = 'reopened'
    GROUP BY category
    UNION ALL
    SELECT category, 0 AS reopenings, count() AS recurrences
    FROM incidents FINAL
    WHERE recurrence_of IS NOT NULL
    GROUP BY category
)
GROUP BY category
ORDER BY category;

CREATE OR REPLACE VIEW dead_letters_by_reason AS
SELECT source, reason, count() AS dead_letters, max(ingested_at) AS newest_ingested_at
FROM dead_letters FINAL
GROUP BY source, reason
ORDER BY source, reason;

-- How new what stands here is: by ingestion time for incidents and dead letters, by event time for reports.
CREATE OR REPLACE VIEW freshness AS
SELECT 'incidents' AS of, max(updated_at) AS newest, count() AS rows FROM incidents FINAL
UNION ALL
SELECT 'assignments' AS of, max(event_time) AS newest, count() AS rows FROM assignments FINAL
UNION ALL
SELECT 'dead_letters' AS of, max(ingested_at) AS newest, count() AS rows FROM dead_letters FINAL;
