-- A member has a limited number of drafts: finding those must not take longer when others have many.
CREATE INDEX drafts_member ON drafts (user_id, made_at);
