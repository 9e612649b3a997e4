CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' CONNECTION LIMIT 4;
ALTER ROLE "{{name}}" SET statement_timeout = '30s';
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO "{{name}}";
SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usesysid IS NOT NULL AND NOT EXISTS (SELECT FROM pg_roles WHERE oid = usesysid);
