//! The command line. No command but `serve` needs a running server: each talks to the database, the private one too.

mod app;
mod audience;
mod audit;
mod clustercockpit;
mod config;
mod connection;
mod doctor;
mod export;
mod import;
mod installation;
mod key;
mod key_request;
mod keypair;
mod master_key;
mod output;
mod pepper;
mod role;
mod serve;
mod signing_key;
mod tenant;
mod token;
mod user;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Config, Overrides};
use crate::traces::Traces;
use output::Format;

/// Multi-tenant identity provider and token issuer
#[derive(Debug, Parser)]
#[command(name = "claviger", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Global {
    /// Configuration file (also CLAVIGER_CONFIG)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where a trial run keeps its database and master key (also CLAVIGER_DATA_DIR) [default: .claviger]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve; the first start of a trial run makes the tenant `default` and prints its admin key
    Serve {
        /// Address and port (also CLAVIGER_LISTEN) [default: 127.0.0.1:8080]
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
    },
    /// Bring the database schema to this program's version
    Migrate,
    /// Tenants
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Applications
    #[command(subcommand)]
    App(app::Command),
    /// API keys
    #[command(subcommand)]
    Key(key::Command),
    /// Requests for developer keys
    #[command(subcommand)]
    KeyRequest(key_request::Command),
    /// Make a key for the person of an e-mail address, and the person if there is none
    CreateKey(key::ForPerson),
    /// Make a user from NAME:ROLE,ROLE:PASSWORD, as ClusterCockpit has it
    AddUser(clustercockpit::AddUser),
    /// Print an API token of a user in the tenant's usual shape, as ClusterCockpit has it
    Jwt(clustercockpit::OfUser),
    /// End a user for good; one who is not there is no error
    DelUser(clustercockpit::OfUser),
    /// Make an Ed25519 key pair and print it; the same as `keypair generate`
    GenKeypair,
    /// People
    #[command(subcommand)]
    User(user::Command),
    /// Take over people and keys of another system, or a tenant that `export` wrote
    Import(import::Order),
    /// Write everything that a tenant is into a file, to be imported elsewhere
    Export(export::Order),
    /// Roles: named sets of scopes
    #[command(subcommand)]
    Role(role::Command),
    /// The catalogue of scopes
    #[command(subcommand)]
    Scope(role::ScopeCommand),
    /// Providers and directories that people log in through
    #[command(subcommand)]
    Connection(connection::Command),
    /// Tokens issued by hand
    #[command(subcommand)]
    Token(token::Command),
    /// Ed25519 key pairs
    #[command(subcommand)]
    Keypair(keypair::Command),
    /// Services with their own shape of token
    #[command(subcommand)]
    Audience(audience::Command),
    /// Keys that sign tokens
    #[command(subcommand)]
    SigningKey(signing_key::Command),
    /// What keys' secrets are hashed under
    #[command(subcommand)]
    Pepper(pepper::Command),
    /// What everything secret is sealed under
    #[command(subcommand)]
    MasterKey(master_key::Command),
    /// The audit trail
    #[command(subcommand)]
    Audit(audit::Command),
    /// Print the OpenAPI document
    Openapi,
    /// Settings
    #[command(subcommand)]
    Config(config::Command),
    /// Find out what is wrong with this installation, and the way out of each
    Doctor,
}

/// Runs the command line of this process.
pub async fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no failure; clap knows which stream each belongs to.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match dispatch(cli).await {
        Ok(code) => code,
        Err(error) => {
            output::complain(&format!("error: {}", output::chain(&error)));
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { global, command } = cli;
    let Global { config: file, data_dir, output } = global;
    let mut overrides = Overrides { file, data_dir, listen: None };
    match command {
        Command::Openapi => output::pretty(&crate::openapi::document())?,
        Command::Config(command) => config::run(command, &overrides, output)?,
        Command::Doctor => return doctor::run(&overrides, output).await,
        Command::Serve { listen } => {
            overrides.listen = listen;
            let config = Config::load(&overrides)?;
            let traces = config.otlp_endpoint.as_ref().map(|url| Traces::start(url, config.otlp_share)).transpose()?;
            crate::log::start(&config.log, config.log_format, traces.as_ref())?;
            let outcome = serve::run(config).await;
            if let Some(traces) = traces {
                traces.end().await;
            }
            outcome?;
        }
        Command::Migrate => {
            let config = quiet(&overrides)?;
            installation::migrate(&config).await?;
            output.print(&serde_json::json!({ "migrated": true }), |_| "The schema is up to date.".to_owned())?;
        }
        Command::Tenant(command) => tenant::run(command, &quiet(&overrides)?, output).await?,
        Command::App(command) => app::run(command, &quiet(&overrides)?, output).await?,
        Command::Key(command) => key::run(command, &quiet(&overrides)?, output).await?,
        Command::KeyRequest(command) => key_request::run(command, &quiet(&overrides)?, output).await?,
        Command::CreateKey(order) => key::for_person(order, &quiet(&overrides)?, output).await?,
        Command::AddUser(order) => clustercockpit::add_user(order, &quiet(&overrides)?, output).await?,
        Command::Jwt(order) => clustercockpit::jwt(order, &quiet(&overrides)?, output).await?,
        Command::DelUser(order) => clustercockpit::del_user(order, &quiet(&overrides)?, output).await?,
        Command::GenKeypair => keypair::run(&keypair::Command::Generate, output)?,
        Command::User(command) => user::run(command, &quiet(&overrides)?, output).await?,
        Command::Import(order) => import::run(order, &quiet(&overrides)?, output).await?,
        Command::Export(order) => export::run(order, &quiet(&overrides)?, output).await?,
        Command::Role(command) => role::run(command, &quiet(&overrides)?, output).await?,
        Command::Scope(command) => role::run_scope(command, &quiet(&overrides)?, output).await?,
        Command::Connection(command) => connection::run(command, &quiet(&overrides)?, output).await?,
        Command::Token(command) => token::run(command, &quiet(&overrides)?, output).await?,
        Command::Keypair(command) => keypair::run(&command, output)?,
        Command::Audience(command) => audience::run(command, &quiet(&overrides)?, output).await?,
        Command::SigningKey(command) => signing_key::run(command, &quiet(&overrides)?, output).await?,
        Command::Pepper(command) => pepper::run(&command, &quiet(&overrides)?, output).await?,
        Command::MasterKey(command) => master_key::run(command, &quiet(&overrides)?, output).await?,
        Command::Audit(command) => return audit::run(command, &quiet(&overrides)?, output).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// A command's own output is what counts: of the log, warnings alone.
fn quiet(overrides: &Overrides) -> anyhow::Result<Config> {
    let config = Config::load(overrides)?;
    crate::log::start("warn", config.log_format, None)?;
    Ok(config)
}
