-- A request that waits until its requester agrees to smaller copies of its images is a draft too.

ALTER TABLE drafts ADD COLUMN request TEXT;                        -- as in jobs; none for the images of a form
ALTER TABLE drafts ADD COLUMN private INTEGER NOT NULL DEFAULT 0;  -- whether only the requester may see the result
