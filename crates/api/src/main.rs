//! The binary: see [`claviger::cli`].

use std::process::ExitCode;

#[actix_web::main]
async fn main() -> ExitCode {
    claviger::cli::run().await
}
