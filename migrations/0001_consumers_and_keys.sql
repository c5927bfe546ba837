-- Consumers, their keys, and what a gateway follows to hear of changes.
--
-- Times are whole seconds since 1970, in UTC, as the gateway counts them; changes.at is milliseconds.
-- Names are compared byte by byte (COLLATE "C"), so that every store has the same order.
--
-- To load many keys at once, see "Loading many keys" in migrations/README.md.

CREATE TABLE consumers (
    id         text COLLATE "C" PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
    username   text COLLATE "C" NOT NULL UNIQUE CHECK (length(username) BETWEEN 1 AND 128),
    custom_id  text COLLATE "C" UNIQUE CHECK (length(custom_id) BETWEEN 1 AND 128),
    plan       text COLLATE "C" NOT NULL CHECK (length(plan) BETWEEN 1 AND 128),
    policies   text[] NOT NULL DEFAULT '{}' CHECK (cardinality(policies) <= 8),
    enabled    boolean NOT NULL DEFAULT true,
    created_at bigint NOT NULL DEFAULT extract(epoch FROM now())::bigint
);

CREATE TABLE keys (
    -- 16 letters and digits: the public part of the key.
    id         text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[0-9A-Za-z]{16}$'),
    consumer   text COLLATE "C" NOT NULL REFERENCES consumers (id) ON DELETE CASCADE,
    name       text COLLATE "C" CHECK (length(name) BETWEEN 1 AND 128),
    -- HMAC-SHA-256 of the whole key under the pepper; the key itself is nowhere.
    digest     bytea NOT NULL CHECK (octet_length(digest) = 32),
    pepper     bigint NOT NULL CHECK (pepper BETWEEN 0 AND 4294967295),
    plan       text COLLATE "C" CHECK (length(plan) BETWEEN 1 AND 128),
    scopes     text[] NOT NULL DEFAULT '{}' CHECK (cardinality(scopes) <= 64),
    created_at bigint NOT NULL DEFAULT extract(epoch FROM now())::bigint,
    not_before bigint,
    expires_at bigint,
    revoked_at bigint
);
CREATE INDEX keys_by_consumer ON keys (consumer, id);

-- How many writes there were. Its row is locked by every write, so the order of numbers is the order
-- in which writes took effect.
CREATE TABLE revision (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    n   bigint NOT NULL CHECK (n >= 0)
);
INSERT INTO revision (n) VALUES (0);

-- What each write touched.
CREATE TABLE changes (
    n    bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    id   text COLLATE "C" NOT NULL,
    at   bigint NOT NULL,
    PRIMARY KEY (n, kind, id)
);

CREATE TABLE audit (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      bigint NOT NULL,
    actor   text NOT NULL,
    action  text NOT NULL,
    subject text NOT NULL,
    detail  jsonb NOT NULL
);
