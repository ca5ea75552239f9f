-- Limits by member, role, server, and for the whole bot; the operator's money; blocks; what admins and members set.
--
-- `member` is a pseudonym: a keyed hash of a Discord user id (storage/pseudonyms.py). What has to outlive the deletion
-- of a person's data (what they have used, a block) carries it instead of the id.

CREATE TABLE pseudonyms (salt TEXT NOT NULL) STRICT;
INSERT INTO pseudonyms VALUES (lower(hex(randomblob(32))));

ALTER TABLE jobs ADD COLUMN member INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN counted_on INTEGER NOT NULL DEFAULT 0;  -- the day it counts in, as 20261127
ALTER TABLE jobs ADD COLUMN extra INTEGER NOT NULL DEFAULT 0 CHECK (extra BETWEEN 0 AND cost);  -- of the cost, from grants
ALTER TABLE jobs ADD COLUMN price INTEGER NOT NULL DEFAULT 0 CHECK (price >= 0);  -- millionths of a dollar
ALTER TABLE jobs ADD COLUMN spoiler INTEGER NOT NULL DEFAULT 0 CHECK (spoiler IN (0, 1));

DROP TRIGGER entries_stay;
DROP TRIGGER entries_remain;
DROP INDEX entries_member;
DROP INDEX entries_guild;

ALTER TABLE entries ADD COLUMN member INTEGER NOT NULL DEFAULT 0;
ALTER TABLE entries ADD COLUMN counted_on INTEGER NOT NULL DEFAULT 0;
ALTER TABLE entries ADD COLUMN extra INTEGER NOT NULL DEFAULT 0;
ALTER TABLE entries ADD COLUMN price INTEGER NOT NULL DEFAULT 0;  -- taken back only if the provider did not make the image
ALTER TABLE entries ADD COLUMN mark TEXT CHECK (mark IN ('unknown', 'strike'));  -- what the end counts against its member

UPDATE jobs SET
    member = member_key((SELECT salt FROM pseudonyms), user_id),
    counted_on = CAST(strftime('%Y%m%d', asked_at / 1000, 'unixepoch') AS INTEGER);
UPDATE entries SET
    member = member_key((SELECT salt FROM pseudonyms), user_id),
    counted_on = CAST(strftime('%Y%m%d', counted_at / 1000, 'unixepoch') AS INTEGER);

-- Every entry, summed up by what a limit adds up: a check reads at most one row per day of its window, however many
-- entries there are. `period` is the day, or for attempts the hour since 1970; `place` a server or 0.
CREATE TABLE totals (
    scope   TEXT    NOT NULL,
    subject INTEGER NOT NULL,
    place   INTEGER NOT NULL,
    period  INTEGER NOT NULL,
    used    INTEGER NOT NULL,
    PRIMARY KEY (scope, subject, place, period)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER entries_total AFTER INSERT ON entries BEGIN
    INSERT INTO totals (scope, subject, place, period, used)
    VALUES ('member', NEW.member, 0, NEW.counted_on, NEW.held + NEW.spent - NEW.extra)
    ON CONFLICT DO UPDATE SET used = used + excluded.used;
    INSERT INTO totals (scope, subject, place, period, used)
    SELECT 'member_here', NEW.member, NEW.guild_id, NEW.counted_on, NEW.held + NEW.spent - NEW.extra
    WHERE NEW.guild_id IS NOT NULL
    ON CONFLICT DO UPDATE SET used = used + excluded.used;
    INSERT INTO totals (scope, subject, place, period, used)
    SELECT 'guild', NEW.guild_id, 0, NEW.counted_on, NEW.held + NEW.spent
    WHERE NEW.guild_id IS NOT NULL
    ON CONFLICT DO UPDATE SET used = used + excluded.used;
    INSERT INTO totals (scope, subject, place, period, used)
    VALUES ('bot', 0, 0, NEW.counted_on, NEW.held + NEW.spent)
    ON CONFLICT DO UPDATE SET used = used + excluded.used;
    INSERT INTO totals (scope, subject, place, period, used)
    VALUES ('money', 0, 0, NEW.counted_on, NEW.price)
    ON CONFLICT DO UPDATE SET used = used + excluded.used;
    INSERT INTO totals (scope, subject, place, period, used)
    SELECT 'extra', NEW.member, NEW.guild_id, 0, NEW.extra
    WHERE NEW.extra <> 0
    ON CONFLICT DO UPDATE SET used = used + excluded.used;
    INSERT INTO totals (scope, subject, place, period, used)
    SELECT 'attempts', NEW.member, 0, NEW.counted_at / 3600000, 1
    WHERE NEW.kind = 'hold'
    ON CONFLICT DO UPDATE SET used = used + excluded.used;
    INSERT INTO totals (scope, subject, place, period, used)
    SELECT NEW.mark, NEW.member, 0, NEW.counted_on, 1
    WHERE NEW.mark IS NOT NULL
    ON CONFLICT DO UPDATE SET used = used + excluded.used;
END;

-- The entries of the past, once; what happened before this schema counts as no attempt, no mark and no money.
INSERT INTO totals (scope, subject, place, period, used)
SELECT 'member', member, 0, counted_on, SUM(held + spent) FROM entries GROUP BY member, counted_on;
INSERT INTO totals (scope, subject, place, period, used)
SELECT 'member_here', member, guild_id, counted_on, SUM(held + spent) FROM entries WHERE guild_id IS NOT NULL
GROUP BY member, guild_id, counted_on;
INSERT INTO totals (scope, subject, place, period, used)
SELECT 'guild', guild_id, 0, counted_on, SUM(held + spent) FROM entries WHERE guild_id IS NOT NULL
GROUP BY guild_id, counted_on;
INSERT INTO totals (scope, subject, place, period, used)
SELECT 'bot', 0, 0, counted_on, SUM(held + spent) FROM entries GROUP BY counted_on;

-- Entries are append-only. The exceptions: a person's id may be erased, and the sweeper first says until which day.
CREATE TRIGGER entries_stay BEFORE UPDATE OF
    id, job_id, kind, member, guild_id, held, spent, extra, price, mark, counted_at, counted_on, at
ON entries BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;
CREATE TRIGGER entries_erased BEFORE UPDATE OF user_id ON entries WHEN NEW.user_id <> 0
BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;
CREATE TRIGGER entries_remain BEFORE DELETE ON entries
WHEN OLD.counted_on >= COALESCE((SELECT CAST(value AS INTEGER) FROM facts WHERE name = 'kept-from'), 0)
BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;

-- One hold and one end of each job, in one index: it also finds the entries of a job that is to be deleted.
DROP INDEX entries_one_hold;
DROP INDEX entries_one_end;
CREATE UNIQUE INDEX entries_once ON entries (job_id, kind = 'hold');
CREATE INDEX entries_member ON entries (user_id);
CREATE INDEX jobs_member ON jobs (user_id, created_at);
CREATE INDEX jobs_guild ON jobs (guild_id, counted_on);
CREATE INDEX jobs_parent ON jobs (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX entries_day ON entries (counted_on);
CREATE INDEX jobs_unknown ON jobs (ended_at) WHERE reason IN ('outcome_unknown', 'answer_unusable');

-- What the operator found out about a job whose outcome was unknown. Free: its price is taken back.
CREATE TABLE settlements (
    job_id  TEXT    NOT NULL PRIMARY KEY REFERENCES jobs (id),
    outcome TEXT    NOT NULL CHECK (outcome IN ('paid', 'free')),
    actor   INTEGER NOT NULL,
    at      INTEGER NOT NULL
) STRICT;

CREATE TRIGGER settlements_total AFTER INSERT ON settlements WHEN NEW.outcome = 'free' BEGIN
    UPDATE totals SET used = used - (SELECT price FROM jobs WHERE id = NEW.job_id)
    WHERE scope = 'money' AND subject = 0 AND place = 0
        AND period = (SELECT counted_on FROM jobs WHERE id = NEW.job_id);
END;

-- Extra credits of a member in one server; what is used of them is the total 'extra'.
CREATE TABLE grants (
    id       INTEGER NOT NULL PRIMARY KEY,
    guild_id INTEGER NOT NULL,
    user_id  INTEGER NOT NULL,  -- 0 once the person's data has been deleted
    member   INTEGER NOT NULL,
    amount   INTEGER NOT NULL CHECK (amount <> 0),  -- negative: taken back
    reason   TEXT    NOT NULL,
    actor    INTEGER NOT NULL,
    at       INTEGER NOT NULL
) STRICT;

CREATE INDEX grants_member ON grants (member, guild_id, amount);
CREATE INDEX grants_user ON grants (user_id);

-- What a server's admins set. A limit of -1 is none at all, NULL is the operator's.
CREATE TABLE server_limits (
    guild_id INTEGER NOT NULL,
    kind     TEXT    NOT NULL CHECK (kind IN ('server', 'everyone', 'role', 'member')),
    subject  INTEGER NOT NULL,  -- a role, a user, or 0
    daily    INTEGER CHECK (daily >= -1),
    monthly  INTEGER CHECK (monthly >= -1),
    PRIMARY KEY (guild_id, kind, subject)
) STRICT, WITHOUT ROWID;

CREATE TABLE servers (
    guild_id INTEGER NOT NULL PRIMARY KEY,
    settings TEXT    NOT NULL DEFAULT '{}' CHECK (settings GLOB '{*}'),  -- channels, log channel, defaults
    seen_at  INTEGER NOT NULL                                            -- when the bot was last known to be there
) STRICT;

CREATE TABLE presets (
    guild_id INTEGER NOT NULL,
    kind     TEXT    NOT NULL CHECK (kind IN ('persona', 'style')),
    folded   TEXT    NOT NULL,  -- the name, for comparing
    name     TEXT    NOT NULL,
    value    TEXT    NOT NULL,  -- the provider's id
    PRIMARY KEY (guild_id, kind, folded)
) STRICT, WITHOUT ROWID;

CREATE TABLE blocks (
    guild_id INTEGER NOT NULL,  -- where; 0 is everywhere
    kind     TEXT    NOT NULL CHECK (kind IN ('member', 'server')),
    subject  INTEGER NOT NULL,  -- the pseudonym of a member, or a server
    shown_id INTEGER NOT NULL,  -- the same as Discord knows it; 0 once the person's data has been deleted
    reason   TEXT    NOT NULL,
    until    INTEGER,           -- NULL: until it is lifted
    actor    INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (guild_id, kind, subject)
) STRICT, WITHOUT ROWID;

CREATE TABLE member_settings (
    user_id INTEGER NOT NULL PRIMARY KEY,
    model   TEXT,
    format  TEXT,
    private INTEGER CHECK (private IN (0, 1))
) STRICT;

-- Who changed what.
CREATE TABLE audit (
    id       INTEGER NOT NULL PRIMARY KEY,
    at       INTEGER NOT NULL,
    actor    INTEGER NOT NULL,  -- 0 once the person's data has been deleted
    guild_id INTEGER,
    target   INTEGER NOT NULL DEFAULT 0,  -- the user it was about, if any
    action   TEXT    NOT NULL,
    details  TEXT    NOT NULL CHECK (details GLOB '{*}')
) STRICT;

CREATE INDEX audit_guild ON audit (guild_id, at);

-- Who was refused while the provider's balance was empty, to be told when it is not any more.
CREATE TABLE waiting_for_balance (
    user_id    INTEGER NOT NULL PRIMARY KEY,
    guild_id   INTEGER,
    channel_id INTEGER NOT NULL,
    locale     TEXT    NOT NULL,
    at         INTEGER NOT NULL
) STRICT;
