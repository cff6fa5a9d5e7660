-- Run once by the postgres image, on an empty volume, as the administrator in the database `claviger`.
-- Two logins: one owns the tables and migrates them, the other serves requests and owns nothing.

\getenv owner_password CLAVIGER_OWNER_PASSWORD
\getenv app_password CLAVIGER_APP_PASSWORD

-- What the migrations grant to; its rights are the application's rights.
CREATE ROLE claviger_app NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;

CREATE ROLE claviger_owner LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE PASSWORD :'owner_password';
CREATE ROLE claviger_login LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE PASSWORD :'app_password'
    IN ROLE claviger_app;

ALTER DATABASE claviger OWNER TO claviger_owner;
ALTER SCHEMA public OWNER TO claviger_owner;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
-- Nobody else has business in this database.
REVOKE CONNECT, TEMPORARY ON DATABASE claviger FROM PUBLIC;
GRANT CONNECT ON DATABASE claviger TO claviger_app, claviger_owner;
