-- What deleted jobs have used, summed up: when old jobs are deleted, neither what the operator reads about spending nor
-- the usage of a server changes. Rows stay for two months, like totals; nobody can ask for more.

CREATE TABLE carried (
    guild_id   INTEGER NOT NULL,  -- 0 outside of servers
    counted_on INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,  -- 0 once the person's data has been deleted: then there may be several such rows
    model      TEXT    NOT NULL,
    images     INTEGER NOT NULL,  -- delivered ones
    credits    INTEGER NOT NULL,
    paid       INTEGER NOT NULL   -- millionths of a dollar
) STRICT;

CREATE UNIQUE INDEX carried_once ON carried (guild_id, counted_on, user_id, model) WHERE user_id <> 0;
CREATE INDEX carried_guild ON carried (guild_id, counted_on);
CREATE INDEX carried_day ON carried (counted_on);
CREATE INDEX carried_member ON carried (user_id);
