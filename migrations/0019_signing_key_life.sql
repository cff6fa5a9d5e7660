-- The whole life of a signing key, and algorithms beside EdDSA.
--
-- next (published, does not sign) → active → retired (published until its last token has ended) → gone (a row for the
-- record). A key that is gone stays `retired` with `gone_at`, so that programs of before go on reading it.

ALTER TABLE signing_keys
    -- Signs from its first moment: a tenant's first key, and one made in an emergency.
    ADD COLUMN at_once boolean NOT NULL DEFAULT false,
    -- When the private half was destroyed; `sealed_private` is empty from then on.
    ADD COLUMN erased_at timestamptz,
    -- When the last token that it signed ends. Known a while after `erased_at`.
    ADD COLUMN ends_at timestamptz,
    -- True while tokens without an end that it may have signed are not called back.
    ADD COLUMN unending boolean NOT NULL DEFAULT false,
    ADD COLUMN gone_at timestamptz,
    ADD COLUMN gone_why text CHECK (gone_why IN ('ended', 'discarded', 'emergency')),
    DROP CONSTRAINT signing_keys_check,
    DROP CONSTRAINT signing_keys_algorithm_check,
    DROP CONSTRAINT signing_keys_public_key_check,
    -- One that is discarded before its turn is never active.
    ADD CONSTRAINT signing_keys_activated CHECK (
        CASE state WHEN 'next' THEN activated_at IS NULL WHEN 'active' THEN activated_at IS NOT NULL ELSE true END),
    -- Raw bytes: the point of RFC 8032, the uncompressed point of SEC 1, the modulus (its exponent is 65537).
    ADD CONSTRAINT signing_keys_public_key CHECK (octet_length(public_key) =
        CASE algorithm WHEN 'EdDSA' THEN 32 WHEN 'ES256' THEN 65 WHEN 'RS256' THEN 256 END),
    ADD CONSTRAINT signing_keys_algorithm CHECK (algorithm IN ('EdDSA', 'ES256', 'RS256')),
    ADD CONSTRAINT signing_keys_erased CHECK (
        (erased_at IS NOT NULL) = (octet_length(sealed_private) = 0) AND (erased_at IS NULL OR state = 'retired')),
    ADD CONSTRAINT signing_keys_ends CHECK (ends_at IS NULL OR erased_at IS NOT NULL),
    ADD CONSTRAINT signing_keys_unending CHECK (NOT unending OR ends_at IS NOT NULL),
    ADD CONSTRAINT signing_keys_gone CHECK (
        (gone_at IS NULL) = (gone_why IS NULL) AND (gone_at IS NULL OR erased_at IS NOT NULL));
CREATE UNIQUE INDEX signing_keys_one_next ON signing_keys (tenant_id) WHERE state = 'next';
