-- The codes of the cells that cover an incident in the grid's other layers, by layer.
ALTER TABLE incidents
    ADD COLUMN IF NOT EXISTS layer_codes Map(LowCardinality(String), String) AFTER county_code;

-- A view keeps the columns it was made with.
CREATE OR REPLACE VIEW incidents_current AS
SELECT * FROM incidents FINAL;
