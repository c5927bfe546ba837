-- From where keys work, and when they were last used. Gateways before this one need not know: what they
-- issue works from anywhere. But they let every key in from anywhere, so networks hold once none of them
-- runs any more.

ALTER TABLE keys
    -- Networks like 10.0.0.0/8; none: from anywhere.
    ADD COLUMN addresses    text[] NOT NULL DEFAULT '{}' CHECK (cardinality(addresses) <= 16),
    -- The beginning of an hour. Written beside requests; no write of it is a revision.
    ADD COLUMN last_used_at bigint;

-- The time of the last use fits into the page that a row stands in, and no index is touched.
ALTER TABLE keys SET (fillfactor = 90);
