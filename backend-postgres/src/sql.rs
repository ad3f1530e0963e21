//! The statements of a table, for one schema.
//!
//! Each read also says whether the server is a standby, which may lag; each write checks that it is
//! not, that commits wait for the disk, and that the epoch may still be written. All of this is in
//! one statement, because behind a pooler two statements may run in two sessions.

use keystead_core::Durability;

/// The statements, with the schema's name in them.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) has_tables: String,
    pub(crate) create_tables: String,
    pub(crate) store_id: String,
    pub(crate) keyring: String,
    pub(crate) create: String,
    pub(crate) replace_keyring: String,
    pub(crate) read_one: String,
    pub(crate) read: String,
    pub(crate) insert: String,
    pub(crate) upsert: String,
    pub(crate) replace_if: String,
    pub(crate) delete_if: String,
    pub(crate) delete: String,
    pub(crate) page: String,
    /// Lists the transactions that may still write records: all that now hold the lock that a write
    /// takes on the table. A statement takes that lock before it looks at the keyring.
    pub(crate) writers: String,
}

/// Returns the condition under which a session may write: the server is not a standby, a commit
/// waits for the disk (and for the replica, if that was declared), and each statement sees what was
/// committed before it began, on which a rotation relies.
fn durable(durability: Durability) -> String {
    // https://www.postgresql.org/docs/current/runtime-config-wal.html#GUC-SYNCHRONOUS-COMMIT
    let waits = match durability {
        Durability::Replicated => "IN ('on', 'remote_apply') AND current_setting('synchronous_standby_names') <> ''",
        _ => "<> 'off'",
    };
    format!(
        "NOT pg_is_in_recovery() AND current_setting('synchronous_commit') {waits} \
         AND current_setting('transaction_isolation') = 'read committed'"
    )
}

impl Statements {
    pub(crate) fn new(schema: &str, durability: Durability) -> Self {
        let schema = quoted(schema);
        let durable = durable(durability);
        let guard = format!(
            "guard AS (SELECT $3::bigint IN (oldest_writable_epoch, current_epoch) AS is_writable, {durable} AS is_durable \
             FROM {schema}.keyring)"
        );
        Self {
            has_tables: format!("SELECT to_regclass('{}.record') IS NOT NULL", schema.replace('\'', "''")),
            create_tables: super::CREATE_SQL.replace("keystead", &schema),
            store_id: format!(
                "/* get */ SELECT pg_is_in_recovery(), store_id FROM (SELECT 1) AS one \
                 LEFT JOIN {schema}.store ON true"
            ),
            keyring: format!(
                "/* check */ SELECT pg_is_in_recovery(), generation, oldest_writable_epoch, current_epoch, bytes \
                 FROM (SELECT 1) AS one LEFT JOIN {schema}.keyring ON true"
            ),
            create: format!(
                "/* open */ WITH guard AS (SELECT {durable} AS is_durable), \
                 store AS (INSERT INTO {schema}.store (store_id) SELECT $1 FROM guard \
                 WHERE is_durable AND NOT EXISTS (SELECT 1 FROM {schema}.record) \
                 ON CONFLICT DO NOTHING RETURNING 1), \
                 keyring AS (INSERT INTO {schema}.keyring (generation, oldest_writable_epoch, current_epoch, bytes) \
                 SELECT $2, $3, $4, $5 FROM store RETURNING 1) \
                 SELECT is_durable, EXISTS (SELECT 1 FROM keyring) FROM guard"
            ),
            replace_keyring: format!(
                "/* rotate */ WITH guard AS (SELECT {durable} AS is_durable), \
                 written AS (UPDATE {schema}.keyring SET generation = $2, oldest_writable_epoch = $3, \
                 current_epoch = $4, bytes = $5 \
                 FROM guard WHERE generation = $1 AND bytes = $6 AND is_durable RETURNING 1) \
                 SELECT is_durable, EXISTS (SELECT 1 FROM written) FROM guard"
            ),
            read_one: format!(
                "/* get */ SELECT pg_is_in_recovery(), record FROM (SELECT 1) AS one \
                 LEFT JOIN {schema}.record ON row_key = $1"
            ),
            read: format!(
                "/* get */ SELECT pg_is_in_recovery(), row_key, record FROM (SELECT 1) AS one \
                 LEFT JOIN {schema}.record ON row_key = ANY ($1)"
            ),
            insert: format!(
                "/* create */ WITH {guard}, \
                 written AS (INSERT INTO {schema}.record (row_key, record) SELECT $1, $2 FROM guard \
                 WHERE is_writable AND is_durable ON CONFLICT (row_key) DO NOTHING RETURNING 1) \
                 SELECT is_durable, is_writable, EXISTS (SELECT 1 FROM written) FROM guard"
            ),
            upsert: format!(
                "/* put */ WITH {guard}, \
                 written AS (INSERT INTO {schema}.record AS stored (row_key, record) SELECT $1, $2 FROM guard \
                 WHERE is_writable AND is_durable ON CONFLICT (row_key) DO UPDATE SET record = excluded.record \
                 WHERE octet_length(stored.record) < 5 \
                 OR substring(stored.record FROM 2 FOR 4) <= substring(excluded.record FROM 2 FOR 4) RETURNING 1) \
                 SELECT is_durable, is_writable, EXISTS (SELECT 1 FROM written) FROM guard"
            ),
            replace_if: format!(
                "/* rotate */ WITH guard AS (SELECT {durable} AS is_durable), \
                 written AS (UPDATE {schema}.record SET record = $3 FROM guard \
                 WHERE row_key = $1 AND record = $2 AND is_durable RETURNING 1) \
                 SELECT is_durable, EXISTS (SELECT 1 FROM written) FROM guard"
            ),
            delete_if: format!(
                "/* delete */ WITH guard AS (SELECT {durable} AS is_durable), \
                 written AS (DELETE FROM {schema}.record USING guard \
                 WHERE row_key = $1 AND record = $2 AND is_durable RETURNING 1) \
                 SELECT is_durable, EXISTS (SELECT 1 FROM written) FROM guard"
            ),
            delete: format!(
                "/* delete */ WITH guard AS (SELECT {durable} AS is_durable), \
                 written AS (DELETE FROM {schema}.record USING guard \
                 WHERE row_key = ANY ($1) AND is_durable RETURNING row_key) \
                 SELECT is_durable, (SELECT array_agg(row_key) FROM written) FROM guard"
            ),
            page: format!(
                "/* list */ SELECT pg_is_in_recovery(), row_key, record FROM (SELECT 1) AS one \
                 LEFT JOIN (SELECT row_key, record FROM {schema}.record \
                 WHERE row_key > $1 AND octet_length(row_key) = 32 ORDER BY row_key LIMIT $2) AS page ON true \
                 ORDER BY row_key"
            ),
            writers: format!(
                "SELECT pg_is_in_recovery(), virtualtransaction, pid FROM (SELECT 1) AS one LEFT JOIN pg_locks ON locktype = 'relation' AND granted \
                 AND relation = '{}.record'::regclass AND database = \
                 (SELECT oid FROM pg_database WHERE datname = current_database()) \
                 AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') \
                 AND pid IS DISTINCT FROM pg_backend_pid()",
                schema.replace('\'', "''")
            ),
        }
    }
}

/// Quotes an identifier.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
