//! The command line: one file per sub-command that has more to it than one call.

mod apikey;
mod desk;
pub mod dlq;
mod doctor;
pub mod held;
pub mod load;
mod output;
mod pauses;
#[cfg(feature = "playground")]
pub mod playground;
#[cfg(feature = "playground")]
pub mod purchases;
mod rebuild;
pub mod schemas;
#[cfg(feature = "playground")]
pub mod seed;
#[cfg(feature = "playground")]
pub mod servers;
mod signals;
pub mod source;
mod streams;
pub mod verify;
mod views;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::app::{self, Only};
use crate::config::{Config, ConfigError};
use crate::schemas::client::install_tls;
use crate::store::sqlstate::describe_chain;
use crate::telemetry;

/// Kafka topics as Postgres views you can trust, served over REST
///
/// StreamView consumes topics such as orders.events, applies each event exactly once in effect to tables in
/// Postgres, and serves them over HTTP. Start with `streamview playground`: it brings its own broker and database.
#[derive(Debug, Parser)]
#[command(name = "streamview", version, max_term_width = 110, after_long_help = AFTER_HELP)]
pub struct Cli {
    /// Settings file (TOML); `streamview config show` prints every key
    #[arg(long, global = true, value_name = "FILE", env = "STREAMVIEW_CONFIG")]
    config: Option<PathBuf>,

    /// Override one setting, such as --set http.bind=127.0.0.1:9000; beats file and environment
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = key_and_value)]
    overrides: Vec<(String, String)>,

    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Settings: defaults < --config file < environment < --set. The environment variable of kafka.group_id is
STREAMVIEW_KAFKA__GROUP_ID: section and key in capitals, joined by two underscores.

Exit codes:
  0         done; a service, rebuild or rollback also where the first SIGTERM or Ctrl-C has stopped it
  1         failed; the message says what to do
  2         wrong arguments or settings
  130, 143  ended by Ctrl-C, by SIGTERM: a service, rebuild or rollback by the second one, whatever else by the first";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service: projector and API
    ///
    /// Consumes the configured topics, keeps the views and serves them until SIGTERM, then finishes or abandons the
    /// batch under way, publishes pending dead letters, leaves the consumer group, drains HTTP and exits 0 within
    /// projector.shutdown_timeout_ms. The schema must be in place: run `streamview migrate` first.
    ///
    /// Where nobody logs in (auth.api_keys, auth.jwt.issuer, auth.mtls.role_map) the process refuses to bind anything but a loopback address,
    /// unless http.allow_anonymous = true says that this is meant.
    Serve {
        /// Run one half only: scale readers and projectors apart
        #[arg(long, value_enum, default_value = "both")]
        only: Only,
    },
    /// Bring the database to the version this binary needs
    ///
    /// Migrations only go forward and are safe to run twice and from several processes at once.
    Migrate {
        /// Make the roles streamview_owner, streamview_writer and streamview_reader too, give the first all tables, and grant
        /// what each may; as a superuser, or as who may create roles and owns the database. Later runs keep the rights
        #[arg(long)]
        roles: bool,
    },
    Doctor(doctor::DoctorArgs),
    Load(load::LoadArgs),
    Verify(verify::VerifyArgs),
    /// Try everything with nothing installed but Postgres' binaries
    #[cfg(feature = "playground")]
    Playground(playground::PlaygroundArgs),
    #[cfg(feature = "playground")]
    Seed(seed::SeedArgs),
    #[cfg(feature = "playground")]
    Purchases(purchases::PurchasesArgs),
    Schemas(schemas::SchemasArgs),
    Held(held::HeldArgs),
    Dlq(dlq::DlqArgs),
    Source(source::SourceArgs),
    Apikey(apikey::ApikeyArgs),
    Rebuild(rebuild::RebuildArgs),
    Rollback(rebuild::RollbackArgs),
    Streams(streams::StreamsArgs),
    Views(views::ViewsArgs),
    Pause(pauses::PauseArgs),
    Resume(pauses::ResumeArgs),
    /// Check or show the settings in force
    Config {
        #[command(subcommand)]
        action: ConfigAction,
    },
    /// Print the OpenAPI document
    Openapi,
    #[command(hide = true)]
    #[cfg(feature = "playground")]
    Servers(servers::ServersArgs),
    /// Judge the SELECT on standard input and forget it: the service begins this, as it may take more than it may
    #[command(hide = true)]
    #[cfg(feature = "embedded-engine")]
    Judge,
}

#[derive(Debug, Subcommand)]
enum ConfigAction {
    /// Say whether the settings are usable, and which secrets are read from files; exit code 2 and the reason if not
    Check,
    /// Print every setting in force as TOML, passwords hidden
    Show,
}

impl Command {
    /// Whether it listens for signals itself, and ends in order.
    fn hears_signals(&self) -> bool {
        match self {
            Command::Serve { .. } | Command::Load(_) | Command::Rebuild(_) | Command::Rollback(_) => true,
            #[cfg(feature = "playground")]
            Command::Playground(_) | Command::Seed(_) | Command::Purchases(_) => true,
            _ => false,
        }
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, such as http.bind=127.0.0.1:9000".to_owned()),
    }
}

/// Exit code for unusable settings.
const UNUSABLE: i32 = 2;

/// Parses the arguments and runs the sub-command; gives the exit code.
pub fn main() -> i32 {
    let cli = Cli::parse();
    #[cfg(feature = "embedded-engine")]
    if matches!(cli.command, Command::Judge) {
        return judge();
    }
    let config = Config::load(cli.config.as_deref(), Config::environment(), &cli.overrides);
    if let Command::Doctor(arguments) = &cli.command {
        return doctor::run(arguments, config).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            1
        });
    }
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {error}");
            return UNUSABLE;
        }
    };
    match run(cli.command, config) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("error: {}", describe_chain(error.chain()));
            exit_code(&error)
        }
    }
}

/// Without settings: it has no environment.
#[cfg(feature = "embedded-engine")]
fn judge() -> i32 {
    match crate::embedded::trial::run(std::io::stdin().lock()) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("error: {error}");
            UNUSABLE
        }
    }
}

fn exit_code(error: &anyhow::Error) -> i32 {
    if let Some(interrupted) = error.downcast_ref::<signals::Interrupted>() {
        return interrupted.code;
    }
    if error.is::<ConfigError>() { UNUSABLE } else { 1 }
}

/// Begins to log, and to send traces; the first lines say what of the environment is not a setting of ours.
fn init_telemetry(config: &Config) -> Result<()> {
    telemetry::init_logs(&config.log)?;
    for variable in Config::service_links(Config::environment()) {
        tracing::debug!(variable, "set by Kubernetes for a Service, not a setting");
    }
    // Collectors are called by TLS, too.
    install_tls();
    telemetry::traces::begin();
    Ok(())
}

async fn migrate(roles: bool, config: &Config) -> Result<()> {
    let views = app::configured_views(config)?;
    let applied = match roles {
        true => app::migrate_with_roles(config, &views).await?,
        false => app::migrate(config, &views).await?,
    };
    match applied.as_slice() {
        [] => output::line("the database is up to date")?,
        applied => output::line(format_args!("applied: {}", applied.join(", ")))?,
    }
    Ok(())
}

fn run(command: Command, config: Config) -> Result<()> {
    match command {
        Command::Config { action: ConfigAction::Check } => {
            app::check(&config)?;
            for warning in app::warnings(&config) {
                eprintln!("warning: {warning}");
            }
            for sentence in &config.secret_files {
                output::line(sentence)?;
            }
            output::line("settings are usable")?;
            return Ok(());
        }
        Command::Config { action: ConfigAction::Show } => {
            output::text(config.to_toml_redacted())?;
            return Ok(());
        }
        Command::Openapi => {
            output::line(crate::api::openapi(&app::view_apis()).to_pretty_json()?)?;
            return Ok(());
        }
        #[cfg(feature = "playground")]
        Command::Servers(arguments) => return servers::run(&arguments),
        _ => {}
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        let result = carry_out(command, Arc::new(config)).await;
        telemetry::traces::end().await;
        result
    });
    // A blocking call to a dead broker must not hold up the exit.
    runtime.shutdown_background();
    result
}

/// Does what takes a runtime.
async fn carry_out(command: Command, config: Arc<Config>) -> Result<()> {
    if !command.hears_signals() {
        signals::end_at_first()?;
    }
    match command {
        Command::Serve { only } => {
            init_telemetry(&config)?;
            let signals = app::Signals::listen()?;
            let views = app::configured_views(&config)?;
            let stop = signals.stop.clone();
            signals.with(app::serve(Arc::clone(&config), views, only, stop, None)).await
        }
        Command::Migrate { roles } => migrate(roles, &config).await,
        Command::Load(arguments) => {
            init_telemetry(&config)?;
            let (stop, patience) = (CancellationToken::new(), config.projector.shutdown_timeout_ms);
            let loading = load::run(arguments, &config, stop.clone());
            signals::in_order(loading, &stop, Duration::from_millis(patience)).await
        }
        Command::Verify(arguments) => verify::run(arguments, &config).await,
        #[cfg(feature = "playground")]
        Command::Playground(arguments) => playground::run(arguments, &config).await,
        Command::Schemas(arguments) => schemas::run(arguments, &config).await,
        #[cfg(feature = "playground")]
        Command::Seed(arguments) => seed::run(arguments, &config).await,
        #[cfg(feature = "playground")]
        Command::Purchases(arguments) => purchases::run(arguments, &config).await,
        Command::Held(arguments) => held::run(arguments, &config).await,
        Command::Dlq(arguments) => dlq::run(arguments, &config).await,
        Command::Source(arguments) => source::run(arguments, &config).await,
        Command::Streams(arguments) => streams::run(arguments, &config).await,
        Command::Views(arguments) => views::run(arguments, &config).await,
        Command::Apikey(arguments) => apikey::run(arguments, &config).await,
        Command::Rebuild(arguments) => {
            init_telemetry(&config)?;
            rebuild::rebuild(arguments, &config, app::Signals::listen()?).await
        }
        Command::Rollback(arguments) => {
            init_telemetry(&config)?;
            rebuild::rollback(arguments, &config, app::Signals::listen()?).await
        }
        Command::Pause(arguments) => pauses::pause(arguments, &config).await,
        Command::Resume(arguments) => pauses::resume(arguments, &config).await,
        #[cfg(feature = "playground")]
        Command::Servers(_) => Ok(()),
        #[cfg(feature = "embedded-engine")]
        Command::Judge => Ok(()),
        Command::Config { .. } | Command::Openapi | Command::Doctor(_) => Ok(()),
    }
}
