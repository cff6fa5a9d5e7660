//! Tokens that bind a form to the browser it was shown in.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_store::id::TenantId;
use subtle::ConstantTimeEq as _;

use crate::Issuer;

/// Purpose of their digests.
const FORM: &str = "form token";

impl Issuer {
    /// What a browser that has no session yet gets as a cookie, so that a form can be bound to it.
    #[must_use]
    pub fn new_form_binding(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.random.bytes::<16>())
    }

    /// The token of a form that is shown to whoever holds this cookie.
    #[must_use]
    pub fn form_token(&self, tenant: TenantId, cookie: &str) -> String {
        let digest = self.peppers.digest(FORM, &[tenant.0.as_bytes(), cookie.as_bytes()]);
        digest.map(|(_, digest)| URL_SAFE_NO_PAD.encode(digest)).unwrap_or_default()
    }

    /// True for the token of a form that was shown to whoever holds this cookie.
    #[must_use]
    pub fn is_form_token(&self, tenant: TenantId, cookie: &str, token: &str) -> bool {
        let Ok(token) = URL_SAFE_NO_PAD.decode(token) else { return false };
        let parts: [&[u8]; 2] = [tenant.0.as_bytes(), cookie.as_bytes()];
        self.peppers.digests(FORM, &parts).any(|(_, expected)| bool::from(expected.ct_eq(&token)))
    }
}
