-- Secrets of keys that another system kept as hashes, until the first use shows what they are.
--
-- A server from before this knows no hash: it answers 503 to such a key until it is replaced.

ALTER TABLE api_key_secrets ALTER COLUMN mac DROP NOT NULL;
ALTER TABLE api_key_secrets ALTER COLUMN pepper_version DROP NOT NULL;
-- In any form in which passwords are taken over.
ALTER TABLE api_key_secrets ADD COLUMN hash text CHECK (octet_length(hash) BETWEEN 1 AND 512);
ALTER TABLE api_key_secrets ADD CHECK ((mac IS NULL) = (pepper_version IS NULL));
ALTER TABLE api_key_secrets ADD CHECK (num_nonnulls(mac, hash) = 1);
