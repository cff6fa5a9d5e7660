//! The OpenID Connect client: what a provider publishes, where a browser is sent, and which ID token is good.

use std::sync::Arc;

use claviger_store::id::TenantId;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use subtle::ConstantTimeEq as _;
use url::Url;

use crate::connection::Oidc;
use crate::outbound::{Document, Outbound, check_url};
use crate::{Failure, Fault, Refusal};

/// Algorithms that an ID token may be signed with (RFC 8725 §3.1): none with a shared secret.
const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];
/// Clocks may differ by so many seconds.
const LEEWAY: f64 = 60.0;
/// An ID token is made when the code is exchanged: one that is older, in seconds, was not made for us now.
const OLDEST: f64 = 600.0;
/// Longest key id that is looked up, in bytes.
const LONGEST_KID: usize = 256;
/// Longest subject, in bytes (OpenID Connect Core §2).
const LONGEST_SUBJECT: usize = 255;

/// Why somebody does not get in from the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declined {
    /// The answer belongs to no login that this browser began, or to one that was finished.
    State,
    /// The provider said no, or what it said does not hold.
    Refused,
    /// A group is missing that the connection requires.
    MissingGroup,
    /// Nobody here is linked, and the connection makes no accounts.
    NoAccount,
    /// The account's name belongs to somebody already.
    NameTaken,
    /// The other side gives no name that an account can have.
    NoName,
    /// The account may not be used.
    MayNot,
    /// To be linked, one must be signed in as whoever began it, in the same browser.
    NotWhoBegan,
    /// That identity, or this person, is linked otherwise already.
    LinkedOtherwise,
}

impl Declined {
    /// As the audit trail writes it.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::State => "invalid_state",
            Self::Refused => "upstream_refused",
            Self::MissingGroup => "missing_group",
            Self::NoAccount => "account_creation_disabled",
            Self::NameTaken => "username_taken",
            Self::NoName => "no_username",
            Self::MayNot => "account_disabled",
            Self::NotWhoBegan => "not_who_began",
            Self::LinkedOtherwise => "linked_otherwise",
        }
    }
}

/// The provider said no, or what it said does not hold: why is for the log.
pub(crate) fn declined(why: &str) -> Failure {
    tracing::info!(reason = why, "what a provider answered does not hold");
    Refusal::Upstream(Declined::Refused).into()
}

/// What a provider publishes of itself (OpenID Connect Discovery §3).
pub(crate) struct Metadata {
    issuer: String,
    authorization: Url,
    token: Url,
    keys: Url,
    userinfo: Option<Url>,
    algorithms: Vec<(&'static str, Algorithm)>,
    /// RFC 9207 §3.
    names_itself: bool,
    basic: bool,
}

impl Metadata {
    /// Reads a document that must be this issuer's.
    pub(crate) fn read(issuer: &str, document: &Value) -> Result<Self, &'static str> {
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        if text("issuer") != Some(issuer) {
            return Err("the metadata are another issuer's");
        }
        let url = |name| {
            let url = Url::parse(text(name)?).ok()?;
            check_url(&url).ok()?;
            // Nobody is led from a place under TLS to one without.
            (url.scheme() == "https" || !issuer.starts_with("https:")).then_some(url)
        };
        let listed: Option<Vec<&str>> = document
            .get("id_token_signing_alg_values_supported")
            .and_then(Value::as_array)
            .map(|list| list.iter().filter_map(Value::as_str).collect());
        // Required; RS256 is what every provider must know.
        let listed = listed.unwrap_or_else(|| vec!["RS256"]);
        let algorithms: Vec<_> = ALGORITHMS.into_iter().filter(|(name, _)| listed.contains(name)).collect();
        if algorithms.is_empty() {
            return Err("no algorithm that we take");
        }
        let ways = document.get("token_endpoint_auth_methods_supported").and_then(Value::as_array);
        Ok(Self {
            issuer: issuer.to_owned(),
            authorization: url("authorization_endpoint").ok_or("no good authorization_endpoint")?,
            token: url("token_endpoint").ok_or("no good token_endpoint")?,
            keys: url("jwks_uri").ok_or("no good jwks_uri")?,
            userinfo: url("userinfo_endpoint"),
            algorithms,
            names_itself: document.get("authorization_response_iss_parameter_supported") == Some(&Value::Bool(true)),
            basic: ways.is_none_or(|ways| ways.iter().any(|way| way == "client_secret_basic")),
        })
    }

    /// Whether an authorization response came from this provider (RFC 9207 §2.4).
    pub(crate) fn sent(&self, iss: Option<&str>) -> bool {
        match iss {
            Some(iss) => iss == self.issuer,
            None => !self.names_itself,
        }
    }

    /// Where a browser is sent (RFC 6749 §4.1.1, RFC 7636 §4.3).
    pub(crate) fn authorization_url(&self, asked: &Asked<'_>) -> Url {
        let Asked { oidc, redirect_uri, state, nonce, challenge } = asked;
        let mut scopes = vec!["openid"];
        scopes.extend(oidc.scopes.iter().map(String::as_str).filter(|scope| *scope != "openid"));
        let mut url = self.authorization.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &oidc.client_id)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("state", state)
            .append_pair("nonce", nonce)
            .append_pair("code_challenge", challenge)
            .append_pair("code_challenge_method", "S256");
        url
    }
}

/// An authorization that is asked for.
pub(crate) struct Asked<'a> {
    pub(crate) oidc: &'a Oidc,
    pub(crate) redirect_uri: &'a str,
    pub(crate) state: &'a str,
    pub(crate) nonce: &'a str,
    pub(crate) challenge: &'a str,
}

/// What an ID token must say.
pub(crate) struct Wanted<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) client: &'a str,
    /// Ours; `None` after a refresh, where none is sent (OpenID Connect Core §12.2).
    pub(crate) nonce: Option<&'a str>,
    /// Whom it was about before; `None` at a login.
    pub(crate) subject: Option<&'a str>,
}

/// A finite positive number of seconds.
fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<f64>, &'static str> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64().filter(|_| value.is_number()) {
            Some(number) if number.is_finite() && number > 0.0 => Ok(Some(number)),
            _ => Err("a time that is no positive number"),
        },
    }
}

/// The rule for a signed ID token's claims (OpenID Connect Core §3.1.3.7). Returns its subject.
pub(crate) fn judge(claims: &Map<String, Value>, wanted: &Wanted<'_>, now: f64) -> Result<String, &'static str> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(wanted.issuer) {
        return Err("another issuer's ID token");
    }
    let for_us = match claims.get("aud") {
        Some(Value::String(audience)) => audience == wanted.client,
        // Ours alone: another audience could be somebody who uses it against us.
        Some(Value::Array(audiences)) => matches!(audiences.as_slice(), [Value::String(one)] if one == wanted.client),
        _ => false,
    };
    if !for_us {
        return Err("an ID token for another audience");
    }
    if claims.contains_key("azp") && text("azp") != Some(wanted.client) {
        return Err("an ID token that another party asked for");
    }
    let expires = seconds(claims, "exp")?.ok_or("an ID token without an end")?;
    let issued = seconds(claims, "iat")?.ok_or("an ID token without a beginning")?;
    if expires + LEEWAY <= now {
        return Err("an ID token that has expired");
    }
    if issued > now + LEEWAY || seconds(claims, "nbf")?.is_some_and(|from| from > now + LEEWAY) {
        return Err("an ID token from the future");
    }
    if issued + OLDEST < now {
        return Err("an old ID token");
    }
    let nonce = text("nonce").unwrap_or_default();
    match wanted.nonce {
        Some(wanted) if bool::from(wanted.as_bytes().ct_eq(nonce.as_bytes())) => {}
        Some(_) => return Err("an ID token with another nonce, or none"),
        None => {}
    }
    let subject = text("sub").filter(|sub| (1..=LONGEST_SUBJECT).contains(&sub.len()) && !sub.chars().any(char::is_control));
    let subject = subject.ok_or("an ID token without a subject")?;
    match wanted.subject {
        Some(wanted) if wanted != subject => Err("an ID token about somebody else"),
        _ => Ok(subject.to_owned()),
    }
}

/// The one key of a set that signed with this algorithm under this id. Without an id, the set must have just one that fits.
fn key_of<'a>(keys: &'a [Jwk], kid: Option<&str>, name: &str) -> Option<&'a Jwk> {
    let fits = |key: &&Jwk| {
        let kind = match (&key.algorithm, name.get(..2)) {
            (AlgorithmParameters::RSA(_), Some("RS" | "PS")) => true,
            (AlgorithmParameters::EllipticCurve(ec), Some("ES")) => match name {
                "ES256" => ec.curve == EllipticCurve::P256,
                _ => ec.curve == EllipticCurve::P384,
            },
            (AlgorithmParameters::OctetKeyPair(okp), Some("Ed")) => okp.curve == EllipticCurve::Ed25519,
            _ => false,
        };
        let purpose = matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let same = key.common.key_algorithm.is_none_or(|own| own.to_string() == name);
        kind && purpose && same
    };
    let mut fitting = keys.iter().filter(fits).filter(|key| kid.is_none() || key.common.key_id.as_deref() == kid);
    let found = fitting.next()?;
    fitting.next().is_none().then_some(found)
}

/// Keys that can be read; others are somebody else's.
fn keys_of(document: &Value) -> Vec<Jwk> {
    let entries = document.get("keys").and_then(Value::as_array);
    entries.into_iter().flatten().take(100).filter_map(|entry| serde_json::from_value(entry.clone()).ok()).collect()
}

/// The algorithm's name as the header has it, in its exact case.
fn named_algorithm(token: &str) -> Option<String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    let header: Map<String, Value> = serde_json::from_slice(&header).ok()?;
    // What must be understood, we do not (RFC 7515 §4.1.11).
    if header.contains_key("crit") || header.contains_key("b64") {
        return None;
    }
    match header.get("typ") {
        None => {}
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case("JWT") => {}
        Some(_) => return None,
    }
    header.get("alg")?.as_str().map(str::to_owned)
}

/// An access token of a provider's, to be sent as `Authorization: Bearer` to whom it is for.
pub struct UpstreamToken {
    /// As the provider gave it.
    pub token: SecretString,
    /// Seconds that it lives, if the provider said.
    pub expires_in: Option<i64>,
    /// What it allows there, space-separated, if the provider said.
    pub scope: Option<String>,
}

/// What a provider gave at its token endpoint, not yet read.
pub(crate) struct Given {
    pub(crate) refresh_token: Option<SecretString>,
    id_token: Option<SecretString>,
    access_token: Option<SecretString>,
    is_bearer: bool,
    expires_in: Option<i64>,
    scope: Option<String>,
}

/// What a provider said at its token endpoint.
pub(crate) struct Said {
    pub(crate) subject: String,
    /// Claims of the ID token, and under them those of userinfo.
    pub(crate) claims: Map<String, Value>,
    pub(crate) refresh_token: Option<SecretString>,
    /// A bearer token; of others we would not know how they are used.
    pub(crate) access: Option<UpstreamToken>,
}

/// A tenant's way to one provider.
pub(crate) struct Way<'a> {
    pub(crate) outbound: &'a Outbound,
    pub(crate) tenant: TenantId,
    pub(crate) oidc: &'a Oidc,
    pub(crate) secret: Option<&'a SecretString>,
    /// Seconds since 1970.
    pub(crate) now: i64,
}

impl Way<'_> {
    /// What the provider publishes.
    pub(crate) async fn metadata(&self) -> Result<Arc<Metadata>, Failure> {
        let url = format!("{}/.well-known/openid-configuration", self.oidc.issuer.trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|error| Fault::Internal(error.to_string()))?;
        let document = self.outbound.document(self.tenant, &url).await?;
        let metadata = Metadata::read(&self.oidc.issuer, &document.json);
        metadata.map(Arc::new).map_err(|why| Fault::Upstream(format!("{url}: {why}")).into())
    }

    /// How many keys the provider signs with, for whoever tries a connection.
    pub(crate) async fn keys(&self, metadata: &Metadata) -> Result<usize, Failure> {
        Ok(keys_of(&self.outbound.document(self.tenant, &metadata.keys).await?.json).len())
    }

    /// Exchanges a code (RFC 6749 §4.1.3).
    pub(crate) async fn exchange(
        &self,
        metadata: &Metadata,
        code: &str,
        redirect_uri: &str,
        verifier: &SecretString,
        nonce: &str,
    ) -> Result<Said, Failure> {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier.expose_secret()),
        ];
        let wanted = Wanted { issuer: &metadata.issuer, client: &self.oidc.client_id, nonce: Some(nonce), subject: None };
        let given = self.tokens(metadata, &form).await?;
        self.read(metadata, given, wanted).await
    }

    /// Refreshes (OpenID Connect Core §12). What is given is yet to be read, and its refresh token to be kept before that: the one
    /// that was sent may be good no more.
    pub(crate) async fn refresh(&self, metadata: &Metadata, refresh_token: &SecretString) -> Result<Given, Failure> {
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.expose_secret())];
        self.tokens(metadata, &form).await
    }

    /// Reads what a refresh gave. Without an ID token it only says yes.
    pub(crate) async fn read_refreshed(&self, metadata: &Metadata, given: Given, subject: &str) -> Result<Said, Failure> {
        let wanted = Wanted { issuer: &metadata.issuer, client: &self.oidc.client_id, nonce: None, subject: Some(subject) };
        self.read(metadata, given, wanted).await
    }

    async fn tokens(&self, metadata: &Metadata, form: &[(&str, &str)]) -> Result<Given, Failure> {
        let mut form = form.to_vec();
        let mut basic = None;
        match self.secret {
            Some(secret) if metadata.basic => basic = Some((self.oidc.client_id.as_str(), secret)),
            Some(secret) => form.extend([("client_id", self.oidc.client_id.as_str()), ("client_secret", secret.expose_secret())]),
            None => form.push(("client_id", &self.oidc.client_id)),
        }
        let posted = self.outbound.post(self.tenant, &metadata.token, &form, basic).await?;
        let text = |name: &str| posted.json.get(name).and_then(Value::as_str);
        if !posted.ok {
            // A client that it does not know is for the admin to mend, not for the person to hear.
            return match text("error") {
                Some("invalid_client" | "unauthorized_client") => {
                    Err(Fault::Upstream(format!("{}: it does not know us by this client id and secret", metadata.token)).into())
                }
                _ => Err(declined("the provider refused the code or refresh token")),
            };
        }
        let secret = |name: &str| text(name).map(|token| SecretString::from(token.to_owned()));
        let is_bearer = text("token_type").is_none_or(|kind| kind.eq_ignore_ascii_case("bearer"));
        Ok(Given {
            refresh_token: secret("refresh_token"),
            id_token: secret("id_token"),
            access_token: secret("access_token"),
            is_bearer,
            expires_in: posted.json.get("expires_in").and_then(Value::as_i64),
            scope: text("scope").map(str::to_owned),
        })
    }

    async fn read(&self, metadata: &Metadata, given: Given, wanted: Wanted<'_>) -> Result<Said, Failure> {
        let Given { refresh_token, id_token, access_token, is_bearer, expires_in, scope } = given;
        let (subject, mut claims) = match (&id_token, wanted.subject) {
            (Some(token), _) => self.verified(metadata, token.expose_secret(), &wanted).await?,
            (None, Some(subject)) => (subject.to_owned(), Map::new()),
            (None, None) => return Err(declined("no ID token")),
        };
        if self.oidc.userinfo
            && let (Some(url), Some(token)) = (&metadata.userinfo, &access_token)
        {
            let Value::Object(more) = self.outbound.with_token(self.tenant, url, token).await? else {
                return Err(declined("userinfo is no object"));
            };
            // OpenID Connect Core §5.3.2.
            if more.get("sub").and_then(Value::as_str) != Some(subject.as_str()) {
                return Err(declined("userinfo about somebody else"));
            }
            for (name, value) in more {
                claims.entry(name).or_insert(value);
            }
        }
        let access = access_token.filter(|_| is_bearer).map(|token| UpstreamToken { token, expires_in, scope });
        Ok(Said { subject, claims, refresh_token, access })
    }

    async fn verified(
        &self,
        metadata: &Metadata,
        token: &str,
        wanted: &Wanted<'_>,
    ) -> Result<(String, Map<String, Value>), Failure> {
        let name = named_algorithm(token).ok_or_else(|| declined("an ID token whose header does not hold"))?;
        let algorithm = metadata.algorithms.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm);
        let algorithm = algorithm.ok_or_else(|| declined("an ID token with an algorithm that is not taken"))?;
        let kid = decode_header(token).map_err(|_| declined("an ID token whose header does not hold"))?.kid;
        if kid.as_ref().is_some_and(|kid| kid.len() > LONGEST_KID) {
            return Err(declined("an ID token with too long a key id"));
        }
        let keys = self.outbound.document(self.tenant, &metadata.keys).await?;
        let key = match self.key(&keys, kid.as_deref(), &name) {
            Some(key) => key,
            None => match self.outbound.newer(self.tenant, &metadata.keys, &keys).await? {
                Some(newer) => self.key(&newer, kid.as_deref(), &name),
                None => None,
            }
            .ok_or_else(|| declined("an ID token signed with a key that is not published"))?,
        };
        let mut validation = Validation::new(algorithm);
        // Judged by ourselves, all of them.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims = decode::<Map<String, Value>>(token, &key, &validation);
        let claims = claims.map_err(|_| declined("an ID token whose signature does not hold"))?.claims;
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
        let now = self.now as f64;
        let subject = judge(&claims, wanted, now).map_err(declined)?;
        Ok((subject, claims))
    }

    fn key(&self, document: &Document, kid: Option<&str>, name: &str) -> Option<DecodingKey> {
        DecodingKey::from_jwk(key_of(&keys_of(&document.json), kid, name)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: f64 = 1_800_000_000.0;

    fn wanted() -> Wanted<'static> {
        Wanted { issuer: "https://idp.test", client: "us", nonce: Some("n"), subject: None }
    }

    fn judged(change: impl FnOnce(&mut Map<String, Value>)) -> Result<String, &'static str> {
        let Value::Object(mut claims) = json!({
            "iss": "https://idp.test", "aud": "us", "sub": "u1", "exp": NOW + 300.0, "iat": NOW, "nonce": "n"
        }) else {
            panic!()
        };
        change(&mut claims);
        judge(&claims, &wanted(), NOW)
    }

    #[test]
    fn p36_an_id_token_is_for_us_now_and_from_whom_we_asked() {
        assert_eq!(judged(|_| ()).unwrap(), "u1");
        assert!(judged(|claims| drop(claims.insert("aud".into(), json!(["us"])))).is_ok());
        assert!(judged(|claims| drop(claims.insert("azp".into(), json!("us")))).is_ok());
        for (name, value) in [
            ("iss", json!("https://idp.test/")),
            ("iss", json!("https://evil.test")),
            ("iss", json!(["https://idp.test"])),
            ("aud", json!("them")),
            ("aud", json!(["us", "them"])),
            ("aud", json!([])),
            ("aud", json!("us ")),
            ("azp", json!("them")),
            ("azp", json!(null)),
            ("nonce", json!("m")),
            ("nonce", json!("")),
            ("nonce", json!(["n"])),
            ("exp", json!(NOW - 61.0)),
            ("exp", json!("9999999999")),
            ("exp", json!(null)),
            ("exp", json!(-1)),
            ("iat", json!(NOW + 61.0)),
            ("iat", json!(NOW - 601.0)),
            ("iat", json!([])),
            ("nbf", json!(NOW + 61.0)),
            ("sub", json!("")),
            ("sub", json!(7)),
            ("sub", json!("x".repeat(256))),
            ("sub", json!("a\nb")),
        ] {
            assert!(judged(|claims| drop(claims.insert(name.into(), value.clone()))).is_err(), "{name} {value}");
        }
        for absent in ["iss", "aud", "sub", "exp", "iat", "nonce"] {
            assert!(judged(|claims| drop(claims.remove(absent))).is_err(), "{absent}");
        }
    }

    fn metadata(change: impl FnOnce(&mut Value)) -> Result<Metadata, &'static str> {
        let mut document = json!({
            "issuer": "https://idp.test", "authorization_endpoint": "https://idp.test/a?x=1", "token_endpoint": "https://idp.test/t",
            "jwks_uri": "https://idp.test/k", "id_token_signing_alg_values_supported": ["RS256", "HS256", "none", "es256"],
            "authorization_response_iss_parameter_supported": true
        });
        change(&mut document);
        Metadata::read("https://idp.test", &document)
    }

    #[test]
    fn p36_metadata_are_the_issuers_own_and_name_an_algorithm_of_ours() {
        let good = metadata(|_| ()).unwrap();
        assert_eq!(good.algorithms, [("RS256", Algorithm::RS256)]);
        assert!(good.sent(Some("https://idp.test")) && !good.sent(None) && !good.sent(Some("https://evil.test")));
        let silent = metadata(|document| document["authorization_response_iss_parameter_supported"] = json!(false)).unwrap();
        assert!(silent.sent(None) && !silent.sent(Some("https://evil.test")));
        for (name, value) in [
            ("issuer", json!("https://evil.test")),
            ("issuer", json!("https://idp.test/")),
            ("token_endpoint", json!("ftp://idp.test/t")),
            ("token_endpoint", json!("https://a:b@idp.test/t")),
            ("jwks_uri", json!(null)),
            ("authorization_endpoint", json!("http://idp.test/a")),
            ("token_endpoint", json!("http://idp.test/t")),
            ("authorization_endpoint", json!("javascript:alert(1)")),
            ("id_token_signing_alg_values_supported", json!(["none", "HS256"])),
        ] {
            assert!(metadata(|document| document[name] = value.clone()).is_err(), "{name} {value}");
        }
    }

    #[test]
    fn a_browser_is_sent_with_a_challenge_and_what_the_endpoint_had_before() {
        let oidc = Oidc {
            issuer: "https://idp.test".into(),
            client_id: "us".into(),
            scopes: vec!["email".into(), "openid".into()],
            userinfo: true,
        };
        let asked = Asked { oidc: &oidc, redirect_uri: "https://id.test/cb", state: "s", nonce: "n", challenge: "c" };
        assert_eq!(
            metadata(|_| ()).unwrap().authorization_url(&asked).as_str(),
            "https://idp.test/a?x=1&response_type=code&client_id=us&redirect_uri=https%3A%2F%2Fid.test%2Fcb&scope=openid+email\
             &state=s&nonce=n&code_challenge=c&code_challenge_method=S256"
        );
    }
}
