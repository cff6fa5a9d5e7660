//! Permission as a parameter type: a handler that needs `keys:write` takes `Caller<KeysWrite>`.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest};
use claviger_issuer::audit::Actor;
use claviger_issuer::settings::RequestInfo;
use claviger_issuer::verify::Transport;
use claviger_issuer::{Issuer, Refusal, TenantEntry, caller};
use claviger_store::id::TenantId;

use crate::cookies::{Cookies, from_here};
use crate::credentials;
use crate::problem::Answer;
use crate::traces;

/// What a caller must hold.
pub(crate) trait Permission: 'static {
    /// The scope; `None` lets in whoever may act at all.
    const SCOPE: Option<&'static str>;
    /// True for what only the default tenant's admins may do.
    const PLATFORM: bool = false;
    /// True for what only a person has, and no key.
    const PERSON: bool = false;
    /// True where the cookie of our own pages counts.
    const COOKIE: bool = false;
    /// True for what is no management: a token of the tenant's usual audience does.
    const USUAL: bool = false;
    /// How a key must be allowed to be used for it.
    const TRANSPORT: Transport = Transport::Http;
}

/// Whoever is about to open a WebSocket.
pub(crate) struct ForWebSocket;
impl Permission for ForWebSocket {
    const SCOPE: Option<&'static str> = None;
    const USUAL: bool = true;
    const TRANSPORT: Transport = Transport::Ws;
}

/// Somebody who logged in.
pub(crate) struct APerson;
impl Permission for APerson {
    const SCOPE: Option<&'static str> = None;
    const PERSON: bool = true;
    const COOKIE: bool = true;
}

/// Whoever asks who they are.
pub(crate) struct Oneself;
impl Permission for Oneself {
    const SCOPE: Option<&'static str> = None;
    const COOKIE: bool = true;
    const USUAL: bool = true;
}

macro_rules! permissions {
    ($($name:ident => $scope:expr $(, $platform:literal)?;)*) => {$(
        pub(crate) struct $name;
        impl Permission for $name {
            const SCOPE: Option<&'static str> = $scope;
            $(const PLATFORM: bool = $platform;)?
        }
    )*};
}

permissions! {
    Anyone => None;
    ApplicationsRead => Some("applications:read");
    ApplicationsWrite => Some("applications:write");
    AudiencesRead => Some("audiences:read");
    AudiencesWrite => Some("audiences:write");
    AuditRead => Some("audit:read");
    ConnectionsRead => Some("connections:read");
    ConnectionsWrite => Some("connections:write");
    KeysRead => Some("keys:read");
    KeysWrite => Some("keys:write");
    RolesRead => Some("roles:read");
    RolesWrite => Some("roles:write");
    RevocationsRead => Some("revocations:read");
    SigningKeysRead => Some("signing-keys:read");
    SigningKeysWrite => Some("signing-keys:write");
    TenantsRead => Some("tenants:read"), true;
    TenantsWrite => Some("tenants:write"), true;
    UsersRead => Some("users:read");
    UsersWrite => Some("users:write");
    Verify => Some(claviger_issuer::scope::VERIFY);
}

/// Somebody who may do what `P` says.
pub(crate) struct Caller<P> {
    pub(crate) who: caller::Caller,
    permission: PhantomData<P>,
}

impl<P> Caller<P> {
    /// The tenant that everything happens in.
    pub(crate) fn tenant(&self) -> TenantId {
        self.who.tenant().tenant.id
    }

    /// As the audit trail names this caller.
    pub(crate) fn actor(&self) -> Actor {
        self.who.actor()
    }
}

impl<P: Permission> FromRequest for Caller<P> {
    type Error = Answer;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Answer>>>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let req = req.clone();
        Box::pin(async move {
            let issuer = issuer(&req)?;
            let tenant = path_tenant(&req).await?;
            let brand = &issuer.settings().brand;
            let presented = match tenant.as_ref().is_some_and(|tenant| tenant.settings.lenient_bearer) {
                true => credentials::presented_leniently(&req, brand),
                false => credentials::presented(&req, brand),
            };
            let who = match presented {
                Some(presented) => {
                    let request = RequestInfo { transport: P::TRANSPORT, ..request_info(&req) };
                    match P::USUAL {
                        true => issuer.authenticate_as_usual(tenant.as_deref(), presented, request).await?,
                        false => issuer.authenticate(tenant.as_deref(), presented, request).await?,
                    }
                }
                None if P::COOKIE => signed_in(&req, &issuer, tenant.as_ref()).await?,
                None => return Err(Refusal::Unauthenticated.into()),
            };
            if tenant.is_none() {
                traces::is_about(who.tenant().tenant.id);
            }
            if let Some(scope) = P::SCOPE {
                require(&req, &issuer, &who, scope).await?;
            }
            if P::PERSON {
                who.person()?;
                if who.acting.is_some() {
                    return Err(Refusal::ActingForAnother.into());
                }
            }
            if P::PLATFORM && !issuer.is_platform(who.tenant()) {
                return Err(Refusal::InsufficientScope(P::SCOPE.unwrap_or_default().to_owned()).into());
            }
            Ok(Self { who, permission: PhantomData })
        })
    }
}

/// Refuses who does not hold the scope, and writes that down.
pub(crate) async fn require(req: &HttpRequest, issuer: &Issuer, who: &caller::Caller, scope: &str) -> Result<(), Answer> {
    let Err(refusal) = who.require(scope) else { return Ok(()) };
    let operation = format!("operation:{} {}", req.method(), req.match_pattern().unwrap_or_default());
    issuer.refuse_access(who, scope, &operation).await?;
    Err(refusal.into())
}

/// Whom the browser's cookie stands for. Requests that change something count only if they come from our own pages.
async fn signed_in(req: &HttpRequest, issuer: &Issuer, tenant: Option<&Arc<TenantEntry>>) -> Result<caller::Caller, Answer> {
    let Some(tenant) = tenant else { return Err(Refusal::Unauthenticated.into()) };
    let Some(cookie) = Cookies::of(&tenant.tenant.slug).session(req) else { return Err(Refusal::Unauthenticated.into()) };
    if !req.method().is_safe() && !from_here(req, &issuer.settings().origin()) {
        return Err(Answer::cross_site());
    }
    Ok(issuer.signed_in(tenant, &cookie, request_info(req)).await?)
}

/// The issuer that this process runs.
pub(crate) fn issuer(req: &HttpRequest) -> Result<Data<Issuer>, Answer> {
    req.app_data::<Data<Issuer>>().cloned().ok_or_else(Answer::internal)
}

/// The request's id and origin, as the border found them.
pub(crate) fn request_info(req: &HttpRequest) -> RequestInfo {
    req.extensions().get::<RequestInfo>().cloned().unwrap_or_else(|| RequestInfo::new(String::new(), None))
}

/// The one resolver of a tenant from a path: `/t/{tenant}/…`, which the border also writes for a host that is mapped. `None` at
/// the root, where the credential names it; 404 for a tenant that is not there.
pub(crate) async fn path_tenant(req: &HttpRequest) -> Result<Option<Arc<TenantEntry>>, Answer> {
    let Some(slug) = req.match_info().get("tenant") else { return Ok(None) };
    match issuer(req)?.tenant(slug).await? {
        Some(tenant) if tenant.settings.require_https && !request_info(req).https => Err(Refusal::HttpsRequired.into()),
        Some(tenant) => {
            traces::is_about(tenant.tenant.id);
            Ok(Some(tenant))
        }
        None => Err(Answer::not_found()),
    }
}
