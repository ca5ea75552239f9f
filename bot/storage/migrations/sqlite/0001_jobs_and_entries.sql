-- Times are milliseconds since 1970-01-01 UTC; ids of Discord are its snowflakes.

CREATE TABLE jobs (
    id                TEXT    NOT NULL PRIMARY KEY,
    interaction_id    INTEGER UNIQUE,                   -- a duplicate dispatch is a no-op; none for a reaction
    reacted_to        INTEGER,                          -- the message whose reaction asked, instead of an interaction
    parent_id         TEXT    REFERENCES jobs (id),     -- the job it was made again from
    private           INTEGER NOT NULL CHECK (private IN (0, 1)),
    state             TEXT    NOT NULL
        CHECK (state IN ('reserved', 'acked', 'sending', 'generated', 'spooled', 'delivered', 'released')),
    user_id           INTEGER NOT NULL,
    guild_id          INTEGER,
    channel_id        INTEGER NOT NULL,
    message_id        INTEGER,
    token             TEXT,                             -- the interaction's; erased once its person was told the end
    upload_limit      INTEGER NOT NULL,
    image_url         TEXT    NOT NULL,
    model             TEXT    NOT NULL,
    format            TEXT    NOT NULL,
    prompt            TEXT,
    support_image_url TEXT,
    image_kept        TEXT,                             -- SHA-256 of the bytes kept of it
    support_kept      TEXT,
    image_weight      TEXT,
    persona           TEXT,
    style             TEXT,
    cost              INTEGER NOT NULL CHECK (cost >= 0),
    asked_at          INTEGER NOT NULL,                 -- Discord's clock, from the interaction's id
    created_at        INTEGER NOT NULL,
    sent_at           INTEGER,
    generated_at      INTEGER,
    parked_at         INTEGER,                          -- finished, and nobody could be given it; kept for a claim
    ended_at          INTEGER,
    shared_id         INTEGER,                          -- the public message a private result was shared in
    deleted_at        INTEGER,                          -- when its message was taken away through the bot
    told_at           INTEGER,                          -- when the asker's message showed the end
    output_url        TEXT,
    request_id        TEXT,
    picture_file      TEXT,
    picture_type      TEXT,
    picture_width     INTEGER,
    picture_height    INTEGER,
    picture_size      INTEGER,
    picture_sha256    TEXT,
    reason            TEXT,
    CHECK ((interaction_id IS NULL) = (reacted_to IS NOT NULL)),
    CHECK ((state IN ('delivered', 'released')) = (ended_at IS NOT NULL)),
    CHECK ((state = 'released') = (reason IS NOT NULL))
) STRICT;

-- One reaction of one member to one message makes one picture, however often it is taken back and given again.
CREATE UNIQUE INDEX jobs_one_reaction ON jobs (reacted_to, user_id) WHERE reacted_to IS NOT NULL AND state <> 'released';

CREATE INDEX jobs_message ON jobs (message_id);
CREATE INDEX jobs_shared ON jobs (shared_id) WHERE shared_id IS NOT NULL;
CREATE INDEX jobs_history ON jobs (user_id, ended_at) WHERE state = 'delivered' AND deleted_at IS NULL;
CREATE INDEX jobs_open ON jobs (created_at) WHERE ended_at IS NULL;
CREATE INDEX jobs_parked ON jobs (user_id) WHERE parked_at IS NOT NULL AND ended_at IS NULL;
CREATE INDEX jobs_untold ON jobs (ended_at) WHERE state = 'released' AND told_at IS NULL;

-- The quota is rows, not a counter: an allowance is the sum of held + spent over a window.
CREATE TABLE entries (
    id         INTEGER NOT NULL PRIMARY KEY,
    job_id     TEXT    NOT NULL REFERENCES jobs (id),
    kind       TEXT    NOT NULL CHECK (kind IN ('hold', 'charge', 'release')),
    user_id    INTEGER NOT NULL,
    guild_id   INTEGER,
    held       INTEGER NOT NULL,
    spent      INTEGER NOT NULL,
    counted_at INTEGER NOT NULL,                        -- when the job was asked for: all its entries fall into one window
    at         INTEGER NOT NULL,
    CHECK ((kind = 'hold' AND held >= 0 AND spent = 0)
        OR (kind = 'charge' AND held <= 0 AND spent = -held)
        OR (kind = 'release' AND held <= 0 AND spent = 0))
) STRICT;

CREATE UNIQUE INDEX entries_one_hold ON entries (job_id) WHERE kind = 'hold';
CREATE UNIQUE INDEX entries_one_end ON entries (job_id) WHERE kind IN ('charge', 'release');
CREATE INDEX entries_member ON entries (user_id, counted_at, held, spent);
CREATE INDEX entries_guild ON entries (guild_id, counted_at, held, spent);

CREATE TRIGGER entries_stay BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;
CREATE TRIGGER entries_remain BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;

-- Small facts that outlive a restart, such as the digest of the commands last synced.
CREATE TABLE facts (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- The pictures of a message somebody chose from its menu, until their form comes back.
CREATE TABLE drafts (
    id      TEXT    NOT NULL PRIMARY KEY,
    user_id INTEGER NOT NULL,
    images  TEXT    NOT NULL,                           -- a JSON list of url, name, size, type
    made_at INTEGER NOT NULL
) STRICT;

CREATE INDEX drafts_age ON drafts (made_at);
