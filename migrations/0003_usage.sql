-- What consumers used, quotas that outlive Redis, and which gateways live.

CREATE TABLE usage (
    day      date NOT NULL,
    consumer text COLLATE "C" NOT NULL,
    class    text COLLATE "C" NOT NULL,
    username text COLLATE "C" NOT NULL,
    admitted bigint NOT NULL CHECK (admitted >= 0),
    refused  bigint NOT NULL CHECK (refused >= 0),
    PRIMARY KEY (day, consumer, class)
);
CREATE INDEX usage_by_consumer ON usage (consumer, day);
CREATE INDEX usage_by_username ON usage (username, day);

-- The number of the last batch that was applied for a task.
CREATE TABLE usage_batches (
    task   uuid PRIMARY KEY,
    number bigint NOT NULL,
    at     timestamptz NOT NULL
);

CREATE TABLE quotas (
    rule    text COLLATE "C" NOT NULL,
    subject bytea NOT NULL CHECK (octet_length(subject) = 16),
    period  bigint NOT NULL,
    ends    bigint NOT NULL,
    used    bigint NOT NULL CHECK (used >= 0),
    PRIMARY KEY (rule, subject, period)
);
CREATE INDEX quotas_by_end ON quotas (ends);

CREATE TABLE tasks (
    task    uuid PRIMARY KEY,
    seen_at timestamptz NOT NULL
);
