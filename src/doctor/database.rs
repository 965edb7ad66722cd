//! Postgres: whether it answers, lets us in, can carry us, and lets us do what a service has to.

use std::sync::Arc;

use tokio::time::timeout;

use super::{Check, LONG_PATIENCE, PATIENCE, clock, sql_name};
use crate::app::Served;
use crate::config::Config;
use crate::domain::build::BuildId;
use crate::steward::no_build;
use crate::store::fit::{self, Unfit};
use crate::store::inspect::{self, BuildTables, Closed, Ownership, ReadOnly, Session};
use crate::store::migrate::{self, OtherSchema};
use crate::store::progress::{self, BuildSource};
use crate::store::sqlstate::describe;
use crate::store::{Connection, DbError, pool, roles};

/// What was found of Postgres.
pub struct Database {
    /// What there is to say.
    pub checks: Vec<Check>,
    /// The active build of each view that has one.
    pub builds: Vec<BuildSource>,
}

const REACHABLE: &str = "database.reachable";
const TLS: &str = "database.tls";
const LOGIN: &str = "database.login";
const ENCODING: &str = "database.encoding";
const SESSIONS: &str = "database.sessions";
const WRITABLE: &str = "database.writable";
const MIGRATIONS: &str = "database.migrations";
const GRANTS: &str = "database.grants";
const REBUILDS: &str = "database.rebuilds";
const READS: &str = "database.reads";
const CLOCK: &str = "clock.database";
/// What is asked once there is a session.
const INSIDE: [&str; 7] = [ENCODING, SESSIONS, WRITABLE, MIGRATIONS, GRANTS, REBUILDS, CLOCK];

/// Looks at it.
pub async fn examine(config: &Arc<Config>, views: &[Served]) -> Database {
    let (mut found, of_reads) = tokio::join!(look_inside(config, views), reads(config));
    found.checks.extend(of_reads);
    found
}

/// The address of the API's reads, if it has one of its own.
async fn reads(config: &Config) -> Option<Check> {
    let (settings, url) = (config.database.for_reads(), config.database.read_url.to_string());
    if !config.database.reads_apart() {
        return None;
    }
    Some(match timeout(PATIENCE, inspect::open(&settings)).await {
        Ok(Ok(_)) => Check::ok(READS, url, "answers, and lets us in"),
        Ok(Err(Closed::Away(words))) => {
            Check::failed(READS, url, words, "start that Postgres, or correct database.read_url")
        }
        Ok(Err(Closed::Tls(words, fix))) => Check::failed(READS, url, words, fix),
        Ok(Err(Closed::Login(halt))) => {
            Check::failed(READS, url, halt.detail, "correct role and password in database.read_url")
        }
        Ok(Err(Closed::Pooler(unfit))) => unfit_check(READS, &unfit),
        Err(_) => {
            let words = format!("no answer within {} s", PATIENCE.as_secs());
            Check::failed(READS, url, words, "start that Postgres, or correct database.read_url")
        }
    })
}

async fn look_inside(config: &Arc<Config>, views: &[Served]) -> Database {
    let mut found = Database { checks: Vec::new(), builds: Vec::new() };
    let opened = timeout(PATIENCE, inspect::open(&config.database)).await;
    let silent = || Closed::Away(format!("no answer within {} s", PATIENCE.as_secs()));
    let client = match opened.unwrap_or_else(|_| Err(silent())) {
        Ok(client) => client,
        Err(closed) => {
            let because = found.note_closed(config, closed);
            found.skip(&INSIDE, because);
            return found;
        }
    };
    if timeout(LONG_PATIENCE, found.look(&client, config, views)).await.is_err() {
        found.note_silence(&config.database.url.to_string());
    }
    found
}

impl Database {
    /// What was not looked at yet is not asked.
    fn skip(&mut self, names: &[&'static str], because: &str) {
        for name in names {
            if !self.checks.iter().any(|check| check.name == *name) {
                self.checks.push(Check::not_asked(name, "", because));
            }
        }
    }

    /// It has answered at first, and then no more: whatever a service asks there would wait as well.
    fn note_silence(&mut self, url: &str) {
        let words = format!("has stopped answering within {} s", LONG_PATIENCE.as_secs());
        let fix = "see what it waits for, in SQL: select pid, wait_event, query, pg_blocking_pids(pid) from pg_stat_activity \
                   where application_name = 'streamview-check'; or look at the server's disk and load";
        self.checks.retain(|check| check.name != REACHABLE);
        self.checks.insert(0, Check::failed(REACHABLE, url, words, fix));
        self.skip(&[TLS, LOGIN], "Postgres has stopped answering");
        self.skip(&INSIDE, "Postgres has stopped answering");
    }

    /// Why there is no session, and what the rest is not asked for.
    fn note_closed(&mut self, config: &Config, closed: Closed) -> &'static str {
        let url = &config.database.url;
        let (answers, so_far) = (Check::ok(REACHABLE, url.to_string(), "answers"), Check::not_asked);
        match closed {
            Closed::Away(words) => {
                let fix = "start Postgres, or correct host and port in database.url";
                self.checks.push(Check::failed(REACHABLE, url.to_string(), words, fix));
                self.skip(&[TLS, LOGIN], "Postgres does not answer");
                "Postgres does not answer"
            }
            Closed::Tls(words, fix) => {
                self.checks.extend([answers, Check::failed(TLS, "", words, fix), so_far(LOGIN, "", "there is no TLS")]);
                "there is no TLS"
            }
            Closed::Login(halt) => {
                let fix = login_fix(&halt.detail, halt.next_step);
                let refused = Check::failed(LOGIN, "", halt.detail, fix);
                self.checks.extend([answers, so_far(TLS, "", "the login is refused"), refused]);
                "the login is refused"
            }
            Closed::Pooler(unfit) => {
                self.checks.push(answers);
                self.skip(&[TLS, LOGIN], "a pooler is in the way");
                self.checks.push(unfit_check(SESSIONS, &unfit));
                "a pooler is in the way"
            }
        }
    }

    /// Everything that a session tells, if it is one.
    async fn look(&mut self, client: &Connection, config: &Config, views: &[Served]) {
        // Asked without preparing anything: that might go to another session already.
        let encoding = match fit::check_encoding(client).await {
            Ok(()) => Check::ok(ENCODING, "", "UTF8"),
            Err(unfit) => unfit_check(ENCODING, &unfit),
        };
        let (sessions, is_shared) = match fit::check_sessions(client, &config.database).await {
            Ok(()) => (Check::ok(SESSIONS, "", "each connection has a session of its own"), false),
            Err(unfit) => (unfit_check(SESSIONS, &unfit), matches!(unfit, Unfit::SharedSession)),
        };
        let session = match inspect::session(client).await {
            _ if is_shared => Err("a session is shared with others there".to_owned()),
            told => told.map_err(|error| describe(&error)),
        };
        let version = session.as_ref().map(|session| format!("; PostgreSQL {}", session.version)).unwrap_or_default();
        self.checks.push(Check::ok(REACHABLE, config.database.url.to_string(), format!("answers{version}")));
        let session = match session {
            Ok(session) => session,
            Err(because) => {
                self.skip(&[TLS], &because);
                self.checks.extend([Check::ok(LOGIN, "", "taken"), encoding, sessions]);
                return self.skip(&INSIDE, &because);
            }
        };
        let login = Check::ok(LOGIN, "", format!("role {}, database {}", session.role, session.database));
        self.checks.extend([tls(&session), login, encoding, sessions, writable(&session)]);
        match self.migrations(client, views).await {
            true => self.rights(client, config, views, &session).await,
            false => self.skip(&[GRANTS, REBUILDS], "the tables are not those of this version"),
        }
        self.checks.push(match inspect::clock_ahead(client).await {
            Ok((ahead, error)) => clock(CLOCK, "", ahead, error),
            Err(error) => Check::not_asked(CLOCK, "", describe(&error)),
        });
    }

    /// Whether the tables are those of this version; finds the builds.
    async fn migrations(&mut self, client: &Connection, views: &[Served]) -> bool {
        let (check, are_ours) = match migrate::compare(client).await {
            Ok(Ok(version)) => (self.builds_of(client, views, version).await, true),
            Ok(Err(other)) => (Check::failed(MIGRATIONS, "", other.to_string(), other_fix(other)), false),
            // Without a grant nobody can tell, and which one is told by the next check.
            Err(error) => (Check::not_asked(MIGRATIONS, "", describe(&error)), true),
        };
        self.checks.push(check);
        are_ours
    }

    async fn builds_of(&mut self, client: &Connection, views: &[Served], version: i64) -> Check {
        let mut words = vec![format!("the database is at migration {version}, as this binary needs it")];
        for (view, settings) in views {
            match progress::active_build(client, view.name).await {
                Ok(Some(build)) => {
                    let source = BuildSource { view: view.name, build, topic: settings.topic.clone() };
                    words.push(format!("readers read {}", source.id()));
                    self.builds.push(source);
                }
                Ok(None) => return Check::failed(MIGRATIONS, "", no_build(view.name), "streamview migrate"),
                Err(error) => return Check::not_asked(MIGRATIONS, "", describe(&error)),
            }
        }
        Check::ok(MIGRATIONS, "", words.join("; "))
    }

    async fn rights(&mut self, client: &Connection, config: &Config, views: &[Served], session: &Session) {
        let builds: Vec<(BuildId, Option<&str>)> =
            self.builds.iter().map(|source| tables_of(source, config, views)).collect();
        self.checks.push(match missing_grants(config, &builds).await {
            Ok((role, missing)) => grants(&missing, &role),
            Err(error) => Check::not_asked(GRANTS, "", describe(&error)),
        });
        for (build, _) in builds {
            let told = inspect::ownership(client, build).await;
            self.checks.extend(rebuilds(build, told, session));
        }
    }
}

/// What is missing, and to whom: asked by a session as the projector has it.
async fn missing_grants(config: &Config, builds: &[BuildTables<'_>]) -> Result<(String, Vec<String>), DbError> {
    let writer = pool::connect_writer(&config.database, "public").await?;
    let role = inspect::role(&writer).await?;
    // Where there are roles a function of the owner's does it.
    let forgets = config.audit.retention_days > 0 && !roles::are_there(&writer).await?;
    let of_whom = (config.auth.api_keys, config.manager.enabled, forgets);
    Ok((role, inspect::missing_grants(&writer, builds, of_whom).await?))
}

/// A build, and the table of it whose rows are changed in place.
fn tables_of<'v>(source: &BuildSource, config: &Config, views: &'v [Served]) -> BuildTables<'v> {
    let served = views.iter().find(|(view, _)| view.name == source.view);
    let spec = served.and_then(|(view, settings)| view.spec(&config.rules_of(settings)).ok());
    let table = spec.and_then(|spec| spec.tables.rows).map(|rows| rows.of_key.name);
    (source.id(), table)
}

fn tls(session: &Session) -> Check {
    match &session.tls {
        Some((version, cipher)) => Check::ok(TLS, "", format!("{version}, {cipher}")),
        None if session.is_local => Check::ok(TLS, "", "not encrypted, and does not leave this machine"),
        None => Check::warning(
            TLS,
            "",
            "not encrypted: password and rows go over the network as they are",
            "append sslmode=verify-full to database.url, and set database.tls.ca_file to who signed the server's certificate",
        ),
    }
}

fn login_fix(detail: &str, next_step: &str) -> String {
    match detail.split('"').nth(1) {
        Some(name) if detail.contains("SQLSTATE 3D") => {
            let name = sql_name(name);
            format!("{next_step}\nor in SQL: create database {name} encoding 'UTF8' template template0;")
        }
        Some(name) if detail.contains("password authentication failed") => {
            format!("{next_step}: its password, or in SQL: alter role {} password '…';", sql_name(name))
        }
        _ => format!("{next_step}: role and password; or let it in by pg_hba.conf, then `select pg_reload_conf();`"),
    }
}

fn unfit_check(name: &'static str, unfit: &Unfit) -> Check {
    let fix = match unfit {
        Unfit::Encoding(_) => {
            "in SQL: create database streamview encoding 'UTF8' template template0; then name it in database.url and \
             run `streamview migrate`"
        }
        Unfit::SharedSession => {
            "pool_mode = session for this database in pgbouncer.ini, or Postgres' own port in database.url"
        }
        Unfit::Refused(_) => "leave `options` out of database.url",
        Unfit::TooFew => "raise default_pool_size for this database in pgbouncer.ini (docs/operations.md)",
        Unfit::Database(_) => return Check::not_asked(name, "", unfit.to_string()),
    };
    Check::failed(name, "", unfit.to_string(), fix)
}

fn writable(session: &Session) -> Check {
    let Session { role, database, .. } = session;
    let (role, database) = (sql_name(role), sql_name(database));
    let (message, fix) = match session.read_only {
        None => return Check::ok(WRITABLE, "", "takes writes"),
        Some(ReadOnly::Standby) => {
            let fix =
                "name the primary in database.url; or promote this server, in SQL: select pg_promote();".to_owned();
            ("the server is a standby, which only reads", fix)
        }
        Some(ReadOnly::OfRole) => ("the role may only read", reset(&format!("role {role}"))),
        Some(ReadOnly::OfDatabase) => ("the database may only be read", reset(&format!("database {database}"))),
        Some(ReadOnly::OfRoleInDatabase) => {
            ("the role may only read in this database", reset(&format!("role {role} in database {database}")))
        }
        Some(ReadOnly::OfServer) => {
            let fix = "leave it out of `options` in database.url; or in SQL: alter system reset default_transaction_read_only; \
                       select pg_reload_conf();";
            ("sessions may only read", fix.to_owned())
        }
    };
    Check::failed(WRITABLE, "", format!("{message} (default_transaction_read_only, SQLSTATE 25006)"), fix)
}

/// Takes the setting back; in a transaction that may write, as sessions may only read there.
fn reset(of_whom: &str) -> String {
    format!("in SQL: begin read write; alter {of_whom} reset default_transaction_read_only; commit;")
}

fn other_fix(other: OtherSchema) -> &'static str {
    match other {
        OtherSchema::Other { found, wanted } if found > wanted => {
            "start the version of streamview that has migrated the database: this binary is older"
        }
        OtherSchema::Missing | OtherSchema::Other { .. } => "streamview migrate",
    }
}

fn grants(missing: &[String], role: &str) -> Check {
    if missing.is_empty() {
        return Check::ok(GRANTS, role, "may do all that serving needs");
    }
    let statements: Vec<String> = missing.iter().map(|grant| format!("grant {grant} to {};", sql_name(role))).collect();
    let fix = format!("in SQL, as the owner of the tables: {}", statements.join("\n"));
    Check::failed(GRANTS, role, format!("lacks {}", missing.join("; ")), fix)
}

fn rebuilds(build: BuildId, told: Result<Option<Ownership>, DbError>, session: &Session) -> Option<Check> {
    let subject = build.view;
    let Session { role, database, .. } = session;
    Some(match told {
        Ok(Some(Ownership { is_ours: true, may_create: true, .. })) => {
            Check::ok(REBUILDS, subject, "instances of `serve` can make and drop builds")
        }
        Ok(Some(Ownership { is_ours: true, .. })) => {
            let fix = format!("in SQL: grant create on database {} to {};", sql_name(database), sql_name(role));
            Check::warning(REBUILDS, subject, format!("role {role} may not create the schema of a build"), fix)
        }
        Ok(Some(Ownership { owner, .. })) => Check::warning(
            REBUILDS,
            subject,
            format!("{build} belongs to {owner}: instances of `serve` cannot rebuild it as {role}"),
            format!(
                "run `streamview rebuild` with {owner} in database.url while no instance runs, or let instances run as {owner}"
            ),
        ),
        Ok(None) => return None,
        Err(error) => Check::not_asked(REBUILDS, subject, describe(&error)),
    })
}
