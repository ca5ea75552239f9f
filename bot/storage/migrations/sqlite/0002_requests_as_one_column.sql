-- A request becomes one JSON value, read and written by job_rows alone: what one endpoint needs is no column of all.
-- What SQL has to search (who, where, which message) stays a column.
-- The check is a GLOB, because SQLite before 3.42 calls json_valid unsafe in a schema that it does not trust.

ALTER TABLE jobs RENAME COLUMN told_at TO notified_at;
DROP INDEX jobs_untold;
CREATE INDEX jobs_unnotified ON jobs (ended_at) WHERE state = 'released' AND notified_at IS NULL;

ALTER TABLE jobs ADD COLUMN operation TEXT NOT NULL DEFAULT 'create_from_image';
ALTER TABLE jobs ADD COLUMN request TEXT NOT NULL DEFAULT '{}' CHECK (request GLOB '{*}');
ALTER TABLE jobs ADD COLUMN locale TEXT NOT NULL DEFAULT 'en-US';  -- of the messages about this job

UPDATE jobs SET request = json_patch('{}', json_object(
    'image_url', image_url,
    'model', model,
    'format', format,
    'prompt', prompt,
    'support_image_url', support_image_url,
    'image_sha256', image_kept,
    'support_sha256', support_kept,
    'image_weight', image_weight,
    'persona', persona,
    'style', style
));  -- json_patch leaves out what is null

ALTER TABLE jobs DROP COLUMN image_url;
ALTER TABLE jobs DROP COLUMN model;
ALTER TABLE jobs DROP COLUMN format;
ALTER TABLE jobs DROP COLUMN prompt;
ALTER TABLE jobs DROP COLUMN support_image_url;
ALTER TABLE jobs DROP COLUMN image_kept;
ALTER TABLE jobs DROP COLUMN support_kept;
ALTER TABLE jobs DROP COLUMN image_weight;
ALTER TABLE jobs DROP COLUMN persona;
ALTER TABLE jobs DROP COLUMN style;
