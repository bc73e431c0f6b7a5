-- The role that Tidemark connects as, with no more than its commands need. PostgreSQL 15 to 18. Run it as a superuser
-- in the database that `postgres.connection` names (postgres), on the primary:
--
--   psql -d postgres -f role.sql
--
-- Repeating it is harmless. The role has no password: give it a line in pg_hba.conf (see pg_hba.conf beside this file),
-- or a password with \password tidemark.
SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tidemark') AS is_missing \gset
\if :is_missing
CREATE ROLE tidemark;
\endif
-- REPLICATION: BASE_BACKUP and START_REPLICATION. It can read every byte of the cluster, so guard it like a superuser;
-- but it can't change anything.
ALTER ROLE tidemark LOGIN REPLICATION NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS CONNECTION LIMIT 8;
-- The settings that a backup records, and that a restore needs: some, such as data_directory and primary_conninfo, show
-- to members only.
GRANT pg_read_all_settings TO tidemark;
-- Databases' sizes, for the progress, and the state of the archiver and of the standbys.
GRANT pg_read_all_stats TO tidemark;
-- Which files the configuration is made of: outside the data directory, as on Debian, each backup captures them.
GRANT SELECT ON pg_catalog.pg_file_settings TO tidemark;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_show_all_file_settings() TO tidemark;
GRANT SELECT ON pg_catalog.pg_hba_file_rules, pg_catalog.pg_ident_file_mappings TO tidemark;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_hba_file_rules(), pg_catalog.pg_ident_file_mappings() TO tidemark;
-- `check` proves the way of WAL into the regions with a segment that it finishes.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_switch_wal() TO tidemark;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point(text) TO tidemark;
