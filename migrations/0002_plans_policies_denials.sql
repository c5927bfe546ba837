-- Plans and policies that change without a deployment, and tokens that are taken back.

CREATE TABLE documents (
    kind       text COLLATE "C" NOT NULL CHECK (kind IN ('plan', 'policy')),
    name       text COLLATE "C" NOT NULL CHECK (length(name) BETWEEN 1 AND 128),
    body       jsonb NOT NULL,
    updated_at bigint NOT NULL,
    PRIMARY KEY (kind, name)
);

CREATE TABLE denials (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    issuer        text NOT NULL,
    jti           text,
    subject       text,
    issued_before bigint,
    until         bigint NOT NULL,
    reason        text,
    created_at    bigint NOT NULL,
    CHECK ((jti IS NULL) <> (subject IS NULL)),
    CHECK ((subject IS NULL) = (issued_before IS NULL))
);
CREATE INDEX denials_by_end ON denials (until);
