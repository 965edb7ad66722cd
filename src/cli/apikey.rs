//! `streamview apikey`: makes, lists and revokes the keys by which programs log in. Talks to Postgres directly, so it is how the
//! first administrator's key is made.

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use super::desk::{or_dash, print_json, table};
use super::output;
use crate::api::ops::api_keys::{ApiKeyBody, ApiKeyList, EXPIRES_FORM, MAX_NAME_CHARS, NewApiKeyBody, expiry};
use crate::auth::api_key::{hash_of, prefix_of};
use crate::config::Config;
use crate::login;
use crate::store::api_keys::{self, NewKey};
use crate::store::migrate;

/// Who makes and revokes keys here.
const COMMAND_LINE: &str = "command line";

/// Keys by which programs log in (auth.api_keys = true)
///
/// A key is shown once, when it is made; Postgres keeps a hash of it. Show it as `Authorization: Bearer svk_…` or
/// `X-Api-Key: svk_…`.
#[derive(Debug, Args)]
pub struct ApikeyArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a key and show it, this once
    Create {
        /// Its name: that of its holder in logs and decisions
        #[arg(long)]
        name: String,
        /// What its holder may
        #[arg(long, value_enum)]
        role: KeyRole,
        /// How long it may be used, such as 90d, 12h or P1Y [default: until it is revoked]
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        /// Print what the API would answer, as JSON
        #[arg(long)]
        json: bool,
    },
    /// List all keys
    List {
        /// Print what the API would answer, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key; instances of `serve` let nobody in with it two seconds later
    Revoke {
        /// Its number
        id: i64,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KeyRole {
    /// Reads views and follows changes
    Reader,
    /// Reads, and defines and queries streams
    Developer,
    /// Reads, and all of /ops
    Operator,
    /// Everything, keys too
    Admin,
}

/// Runs it.
pub async fn run(arguments: ApikeyArgs, config: &Config) -> Result<()> {
    let client = migrate::open(&config.database).await?;
    match arguments.action {
        Action::Create { name, role, expires, json } => {
            if name.trim().is_empty() || name.chars().count() > MAX_NAME_CHARS {
                bail!("--name has to be 1 to {MAX_NAME_CHARS} characters");
            }
            let expires_at = match &expires {
                None => None,
                Some(text) => Some(expiry(text).with_context(|| format!("--expires {text}: it {EXPIRES_FORM}"))?),
            };
            let Ok(key) = login::made() else { bail!("there are no random numbers") };
            let role = role.to_possible_value().expect("no role is skipped").get_name().to_owned();
            let new = NewKey {
                name: &name,
                role: &role,
                prefix: prefix_of(&key),
                hash: &hash_of(key.as_bytes()),
                created_by: COMMAND_LINE,
                on_behalf_of: None,
                expires_at,
            };
            let stored = ApiKeyBody::from(api_keys::insert(&client, &new).await?);
            if json {
                return print_json(&NewApiKeyBody { stored, key });
            }
            output::line(&key)?;
            eprintln!("key {} of {name}, {role}; it is not shown again", stored.id);
            if !config.auth.api_keys {
                eprintln!("auth.api_keys is false in the settings in force here: with them no key lets anybody in");
            }
        }
        Action::List { json } => {
            let items = api_keys::list(&client).await?.into_iter().map(ApiKeyBody::from).collect::<Vec<_>>();
            if json {
                return print_json(&ApiKeyList { items });
            }
            let rows: Vec<Vec<String>> = items
                .into_iter()
                .map(|key| {
                    let times = [key.expires_at, key.last_used_at].map(or_dash);
                    let [expires, used] = times;
                    vec![key.id.to_string(), key.prefix, key.role, key.state.to_owned(), expires, used, key.name]
                })
                .collect();
            output::text(table(&["ID", "BEGINS", "ROLE", "STATE", "EXPIRES", "LAST USED", "NAME"], &rows))?;
        }
        Action::Revoke { id } => {
            if !api_keys::revoke(&client, id, COMMAND_LINE).await? {
                bail!("there is no API key {id}");
            }
            output::line(format_args!("key {id} is revoked"))?;
        }
    }
    Ok(())
}
