-- The tables of a store, in the schema "keystead". PostgresBuilder::create_if_missing runs this with
-- the schema that is set; a role that may create schemas can run it by hand.
CREATE SCHEMA IF NOT EXISTS keystead;

-- The id of the store, unencrypted. One row.
CREATE TABLE IF NOT EXISTS keystead.store (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    store_id bytea NOT NULL CHECK (octet_length(store_id) = 16)
);

-- The sealed keyring. One row.
CREATE TABLE IF NOT EXISTS keystead.keyring (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    generation bigint NOT NULL,
    oldest_writable_epoch bigint NOT NULL,
    current_epoch bigint NOT NULL,
    bytes bytea NOT NULL
);

-- One sealed record per user. The row key is an HMAC of the user's id.
CREATE TABLE IF NOT EXISTS keystead.record (
    row_key bytea PRIMARY KEY,
    record bytea NOT NULL
) WITH (fillfactor = 85);

-- Sealed bytes cannot be compressed.
ALTER TABLE keystead.record ALTER COLUMN record SET STORAGE EXTERNAL;
