//! A small OpenID Connect provider on this machine, which answers as the test says: well, or as an attacker's would.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support: every test file uses its own part of it, and a failure here is a failed test"
)]

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use actix_web::web::{self, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_issuer::clock::Clock;
use claviger_issuer::outbound::{Allowed, OutboundSettings};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use url::Url;

/// What it does, all of it changeable while it runs.
pub struct Script {
    /// Claims of whoever logs in; `sub` is among them.
    pub claims: Map<String, Value>,
    /// What userinfo says instead of the claims.
    pub userinfo: Option<Value>,
    /// Changes an ID token's header and claims before it is signed.
    pub twist: Option<fn(&mut Value, &mut Value)>,
    /// Changes the signed token.
    pub break_token: Option<fn(String) -> String>,
    /// What is changed of the metadata.
    pub metadata: Value,
    /// Status and body of the token endpoint, whatever is asked.
    pub token_answer: Option<(u16, Value)>,
    /// Refresh tokens that are good, each once, with whom they are for.
    pub refresh_tokens: HashMap<String, ()>,
    /// Whether refreshes are refused.
    pub refuse_refresh: bool,
    /// Whether a refresh gives an ID token.
    pub id_token_on_refresh: bool,
    /// Seconds that the token endpoint takes.
    pub slow: u64,
    /// Whether userinfo is broken.
    pub userinfo_fails: bool,
    codes: HashMap<String, (String, String, String)>,
    /// Requests at each path.
    pub asked: HashMap<String, u32>,
    /// The forms that the token endpoint was sent.
    pub forms: Vec<HashMap<String, String>>,
    /// `Authorization` of those.
    pub authorizations: Vec<String>,
    made: u32,
}

/// The provider.
#[derive(Clone)]
pub struct Provider {
    pub issuer: String,
    pub script: Arc<Mutex<Script>>,
    key: Arc<SigningKey>,
    clock: Clock,
}

fn sign(key: &SigningKey, header: &Value, claims: &Value) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes()))
}

impl Provider {
    /// Listens; must be told the server's clock before anybody logs in.
    pub async fn start(clock: Clock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let Value::Object(claims) = json!({ "sub": "s-alice", "preferred_username": "alice", "name": "Alice A." }) else {
            unreachable!()
        };
        let script = Script {
            claims,
            userinfo: None,
            twist: None,
            break_token: None,
            metadata: json!({}),
            token_answer: None,
            refresh_tokens: HashMap::new(),
            refuse_refresh: false,
            id_token_on_refresh: true,
            slow: 0,
            userinfo_fails: false,
            codes: HashMap::new(),
            asked: HashMap::new(),
            forms: Vec::new(),
            authorizations: Vec::new(),
            made: 0,
        };
        let provider =
            Self { issuer, script: Arc::new(Mutex::new(script)), key: Arc::new(SigningKey::from_bytes(&[7; 32])), clock };
        let served = provider.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(Data::new(served.clone()))
                .route("/.well-known/openid-configuration", web::get().to(metadata))
                .route("/jwks", web::get().to(jwks))
                .route("/token", web::post().to(token))
                .route("/userinfo", web::get().to(userinfo))
        })
        .workers(1)
        .disable_signals()
        .listen(listener)
        .unwrap()
        .run();
        actix_web::rt::spawn(server);
        provider
    }

    /// What lets a server ask it.
    pub fn outbound(&self) -> OutboundSettings {
        let target: Allowed = self.issuer.strip_prefix("http://").unwrap().parse().unwrap();
        OutboundSettings { allow: vec![target], ..OutboundSettings::default() }
    }

    pub fn set(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    /// The claims of whoever logs in next.
    pub fn person(&self, claims: Value) {
        let Value::Object(claims) = claims else { panic!() };
        self.set(|script| script.claims = claims);
    }

    pub fn asked(&self, path: &str) -> u32 {
        self.script.lock().unwrap().asked.get(path).copied().unwrap_or(0)
    }

    /// What happens at the provider: somebody is sent there, logs in, and is sent back. Returns the query that comes back.
    pub fn log_in(&self, location: &str) -> String {
        let url = Url::parse(location).unwrap();
        let sent: HashMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!(sent["response_type"], "code");
        assert_eq!(sent["code_challenge_method"], "S256");
        assert!(sent["state"].len() >= 43 && sent["nonce"].len() >= 43 && sent["state"] != sent["nonce"]);
        let mut script = self.script.lock().unwrap();
        script.made += 1;
        let code = format!("code-{}", script.made);
        let kept = (sent["nonce"].clone(), sent["code_challenge"].clone(), sent["redirect_uri"].clone());
        script.codes.insert(code.clone(), kept);
        format!("code={code}&state={}", sent["state"])
    }

    fn id_token(&self, script: &Script, nonce: Option<&str>) -> String {
        let now = self.clock.now().timestamp();
        let mut claims = Value::Object(script.claims.clone());
        for (name, value) in [("iss", json!(self.issuer)), ("aud", json!("us")), ("iat", json!(now)), ("exp", json!(now + 300))] {
            claims[name] = value;
        }
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        let mut header = json!({ "alg": "EdDSA", "kid": "k1", "typ": "JWT" });
        if let Some(twist) = script.twist {
            twist(&mut header, &mut claims);
        }
        let token = sign(&self.key, &header, &claims);
        script.break_token.map_or(token.clone(), |broken| broken(token))
    }
}

fn count(provider: &Provider, req: &HttpRequest) {
    *provider.script.lock().unwrap().asked.entry(req.path().to_owned()).or_default() += 1;
}

async fn metadata(provider: Data<Provider>, req: HttpRequest) -> HttpResponse {
    count(&provider, &req);
    let issuer = &provider.issuer;
    let mut document = json!({
        "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"), "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/jwks"), "userinfo_endpoint": format!("{issuer}/userinfo"),
        "id_token_signing_alg_values_supported": ["EdDSA", "RS256", "HS256", "none"],
    });
    for (name, value) in provider.script.lock().unwrap().metadata.as_object().unwrap() {
        document[name] = value.clone();
    }
    HttpResponse::Ok().json(document)
}

async fn jwks(provider: Data<Provider>, req: HttpRequest) -> HttpResponse {
    count(&provider, &req);
    let x = URL_SAFE_NO_PAD.encode(provider.key.verifying_key().to_bytes());
    let secret = URL_SAFE_NO_PAD.encode([1; 32]);
    HttpResponse::Ok().json(json!({ "keys": [
        { "kty": "oct", "kid": "shared", "k": secret },
        { "kty": "OKP", "crv": "Ed25519", "kid": "k1", "use": "sig", "alg": "EdDSA", "x": x },
        { "kty": "OKP", "crv": "Ed25519", "kid": "enc", "use": "enc", "x": x },
    ] }))
}

async fn token(provider: Data<Provider>, req: HttpRequest, form: web::Form<HashMap<String, String>>) -> HttpResponse {
    count(&provider, &req);
    let slow = provider.script.lock().unwrap().slow;
    if slow > 0 {
        actix_web::rt::time::sleep(std::time::Duration::from_secs(slow)).await;
    }
    let mut script = provider.script.lock().unwrap();
    let authorization = req.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    script.forms.push(form.0.clone());
    script.authorizations.push(authorization.unwrap_or_default());
    if let Some((status, body)) = &script.token_answer {
        return HttpResponse::build(actix_web::http::StatusCode::from_u16(*status).unwrap()).json(body);
    }
    let invalid = || HttpResponse::BadRequest().json(json!({ "error": "invalid_grant" }));
    let text = |name: &str| form.get(name).cloned().unwrap_or_default();
    let nonce = match text("grant_type").as_str() {
        "authorization_code" => {
            let Some((nonce, challenge, redirect_uri)) = script.codes.remove(&text("code")) else { return invalid() };
            let fits = URL_SAFE_NO_PAD.encode(Sha256::digest(text("code_verifier"))) == challenge;
            if !fits || redirect_uri != text("redirect_uri") {
                return invalid();
            }
            Some(nonce)
        }
        "refresh_token" => {
            if script.refresh_tokens.remove(&text("refresh_token")).is_none() || script.refuse_refresh {
                return invalid();
            }
            None
        }
        _ => return invalid(),
    };
    script.made += 1;
    let refresh_token = format!("refresh-{}-canary", script.made);
    script.refresh_tokens.insert(refresh_token.clone(), ());
    let access_token = format!("at-{}-canary", script.made);
    let mut answer = json!({
        "access_token": access_token, "token_type": "Bearer", "expires_in": 300, "scope": "openid mail.read",
        "refresh_token": refresh_token
    });
    if nonce.is_some() || script.id_token_on_refresh {
        answer["id_token"] = json!(provider.id_token(&script, nonce.as_deref()));
    }
    HttpResponse::Ok().json(answer)
}

async fn userinfo(provider: Data<Provider>, req: HttpRequest) -> HttpResponse {
    count(&provider, &req);
    if req.headers().get("authorization").is_none_or(|value| !value.to_str().unwrap().starts_with("Bearer at-")) {
        return HttpResponse::Unauthorized().json(json!({ "error": "invalid_token" }));
    }
    let script = provider.script.lock().unwrap();
    if script.userinfo_fails {
        return HttpResponse::InternalServerError().finish();
    }
    HttpResponse::Ok().json(script.userinfo.clone().unwrap_or_else(|| Value::Object(script.claims.clone())))
}
