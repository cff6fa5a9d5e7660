//! A service that takes tokens of one issuer:
//! `cargo run -p claviger-verifier --features actix --example guarded_service -- ISSUER AUDIENCE PORT`.
use std::error::Error;

use actix_web::web::{self, Data};
use actix_web::{App, HttpServer, Responder, get};
use claviger_verifier::Verifier;
use claviger_verifier::actix::{RequireScope, VerifiedToken};

/// Who is calling? Any good token.
#[get("/me")]
async fn me(token: VerifiedToken) -> impl Responder {
    format!("{} {}\n", token.subject, token.scope.join(" "))
}

async fn events() -> impl Responder {
    "events\n"
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [issuer, audience, port] = std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "ISSUER AUDIENCE PORT")?;
    let verifier = Verifier::builder(issuer).audience(audience).build()?;
    verifier.ready().await;
    let verifier = Data::new(verifier);
    HttpServer::new(move || {
        App::new()
            .app_data(verifier.clone())
            .service(me)
            .service(web::scope("/events").wrap(RequireScope::new("events:read")).route("", web::get().to(events)))
    })
    .workers(1)
    .bind(("127.0.0.1", port.parse()?))?
    .run()
    .await?;
    Ok(())
}
