-- Suspected incidents: too little is known of them to tell anybody, so they are not in work.  Amendments: a report that
-- says something else under its own id is not another report.  The other views stay as 005 made them.

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
WHERE status NOT IN ('suspected', 'closed', 'rejected')
GROUP BY level, code
ORDER BY level, code;

CREATE OR REPLACE VIEW open_by_cell AS
SELECT
    grid_code,
    count() AS incidents,
    countIf(priority = 1) AS urgent,
    min(opened_at) AS oldest_opened_at
FROM incidents FINAL
WHERE status NOT IN ('suspected', 'closed', 'rejected') AND grid_code IS NOT NULL
GROUP BY grid_code
ORDER BY grid_code;

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
WHERE status NOT IN ('suspected', 'closed', 'rejected')
GROUP BY category, department
ORDER BY category, department;

CREATE OR REPLACE VIEW suspected_by_category AS
SELECT
    category,
    any(category_name) AS category_name,
    department,
    count() AS incidents,
    min(opened_at) AS oldest_opened_at
FROM incidents FINAL
WHERE status = 'suspected'
GROUP BY category, department
ORDER BY category, department;

CREATE OR REPLACE VIEW reports_by_hour AS
SELECT
    toStartOfHour(event_time, 'UTC') AS hour,
    category,
    source,
    countIf(outcome NOT IN ('repeat', 'amended', 'not_an_event')) AS reports,
    countIf(outcome = 'repeat') AS repeats,
    countIf(outcome = 'amended') AS amended,
    countIf(outcome = 'not_an_event') AS not_events,
    countIf(outcome = 'opened' OR (outcome = 'late' AND NOT JSONExtractBool(why, 'found'))) AS incidents,
    reports - incidents AS collapsed
FROM assignments FINAL
WHERE revision = 0
GROUP BY hour, category, source
ORDER BY hour, category, source;
