-- Where a kept picture is being handed over, and that a private result is being shared, before Discord is asked: a
-- program that is killed in between can then tell whether it happened.

ALTER TABLE jobs ADD COLUMN claim_token TEXT;     -- of the /recover whose answer carries the picture; erased at the end
ALTER TABLE jobs ADD COLUMN claim_limit INTEGER;  -- bytes Discord accepts there in one file
ALTER TABLE jobs ADD COLUMN claimed_at INTEGER;
ALTER TABLE jobs ADD COLUMN sharing_at INTEGER;
