//! For services written with actix-web: put a [`Verifier`] into the app's data, then take [`VerifiedToken`] as a parameter,
//! or wrap routes in [`RequireScope`].

use std::future::{Future, Ready, ready};
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;

use actix_web::body::EitherBody;
use actix_web::dev::{Payload, Service, ServiceRequest, ServiceResponse, Transform};
use actix_web::http::{StatusCode, header};
use actix_web::web::Data;
use actix_web::{Error, FromRequest, HttpMessage as _, HttpRequest, HttpResponse, ResponseError};

use crate::answer::ErrorAnswer;
use crate::client::{Refused, Unavailable, Verifier, require};
use crate::presented::RequestParts;
use crate::{AccessToken, ErrorStyle};

/// The token of a request, verified. A handler that takes it is not entered without one.
#[derive(Debug, Clone)]
pub struct VerifiedToken(pub AccessToken);

impl Deref for VerifiedToken {
    type Target = AccessToken;
    fn deref(&self) -> &AccessToken {
        &self.0
    }
}

/// A refusal as an answer.
#[derive(Debug)]
pub struct NotVerified {
    /// Why.
    pub refused: Refused,
    answer: ErrorAnswer,
}

impl std::fmt::Display for NotVerified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.refused.fmt(f)
    }
}

impl ResponseError for NotVerified {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.answer.status).unwrap_or(StatusCode::UNAUTHORIZED)
    }

    fn error_response(&self) -> HttpResponse {
        let ErrorAnswer { status: _, www_authenticate, retry_after, content_type, body } = &self.answer;
        let mut response = HttpResponse::build(self.status_code());
        if let Some(challenge) = www_authenticate {
            response.insert_header((header::WWW_AUTHENTICATE, challenge.as_str()));
        }
        if let Some(seconds) = retry_after {
            response.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        response.insert_header((header::CONTENT_TYPE, content_type.as_str()));
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        response.body(body.clone())
    }
}

impl RequestParts for HttpRequest {
    fn header(&self, name: &str) -> Vec<&str> {
        self.headers().get_all(name).filter_map(|value| value.to_str().ok()).collect()
    }

    fn query(&self) -> &str {
        self.query_string()
    }
}

fn verifier(req: &HttpRequest) -> Result<Verifier, NotVerified> {
    let found =
        req.app_data::<Data<Verifier>>().map(|data| data.get_ref().clone()).or_else(|| req.app_data::<Verifier>().cloned());
    found.ok_or_else(|| {
        // A service that forgot its verifier lets nobody in.
        let refused = Refused::Unavailable(Unavailable::Keys);
        NotVerified { answer: ErrorStyle::default().answer(&refused), refused }
    })
}

/// What a request was found to carry, and by which verifier: another may expect another audience.
#[derive(Clone)]
struct Known {
    by: Verifier,
    token: AccessToken,
}

/// Verified at most once a request.
async fn verified(req: &HttpRequest, scopes: &[String]) -> Result<AccessToken, NotVerified> {
    let verifier = verifier(req)?;
    let known = req.extensions().get::<Known>().filter(|known| known.by.is(&verifier)).cloned();
    let outcome = async {
        let token = match known {
            Some(known) => known.token,
            None => verifier.verify_request(req).await?,
        };
        for scope in scopes {
            require(&token, scope)?;
        }
        Ok(token)
    };
    let token = outcome.await.map_err(|refused| NotVerified { answer: verifier.answer(&refused), refused })?;
    req.extensions_mut().insert(Known { by: verifier, token: token.clone() });
    Ok(token)
}

impl FromRequest for VerifiedToken {
    type Error = NotVerified;
    type Future = Pin<Box<dyn Future<Output = Result<Self, NotVerified>>>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let req = req.clone();
        Box::pin(async move { verified(&req, &[]).await.map(Self) })
    }
}

/// Middleware: what it wraps is reached only with a good token that holds all of these scopes.
#[derive(Debug, Clone)]
pub struct RequireScope(Rc<Vec<String>>);

impl RequireScope {
    /// One scope.
    #[must_use]
    pub fn new(scope: impl Into<String>) -> Self {
        Self(Rc::new(vec![scope.into()]))
    }

    /// All of several; none is any good token.
    #[must_use]
    pub fn all<S: Into<String>>(scopes: impl IntoIterator<Item = S>) -> Self {
        Self(Rc::new(scopes.into_iter().map(Into::into).collect()))
    }
}

impl<S, B> Transform<S, ServiceRequest> for RequireScope
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type InitError = ();
    type Transform = Guarded<S>;
    type Future = Ready<Result<Guarded<S>, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(Guarded { service: Rc::new(service), scopes: self.0.clone() }))
    }
}

/// A service behind [`RequireScope`].
pub struct Guarded<S> {
    service: Rc<S>,
    scopes: Rc<Vec<String>>,
}

impl<S, B> Service<ServiceRequest> for Guarded<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>>>>;

    actix_web::dev::forward_ready!(service);

    fn call(&self, req: ServiceRequest) -> Self::Future {
        let (service, scopes) = (self.service.clone(), self.scopes.clone());
        Box::pin(async move {
            // No clone of the request may live on: routing writes into it.
            let admitted = verified(req.request(), &scopes).await;
            match admitted {
                Ok(_) => Ok(service.call(req).await?.map_into_left_body()),
                Err(refused) => Ok(req.into_response(refused.error_response()).map_into_right_body()),
            }
        })
    }
}
