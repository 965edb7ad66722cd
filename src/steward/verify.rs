//! Drives a verification. It changes nothing, so whoever goes on where another process died begins anew.

use tokio::sync::mpsc;

use super::driver::{Course, NOTE, Stopped, failed};
use crate::builds::compare;
use crate::builds::verify::{Ask, Report, Verification, VerifyError};
use crate::crash;
use crate::domain::operation::Phase;
use crate::repair::operations::Verify;
use crate::store::{Connection, operations, pool};

impl Course<'_> {
    pub(super) async fn verify(&mut self) -> Result<(), Stopped> {
        let ask = self.ask()?;
        let Some(build) = self.operation.from_build else {
            return Err(failed("no_build", "the view has no build".to_owned(), "run `streamview migrate`"));
        };
        let household = self.driver.household.clone();
        let found = household.find(&self.client, build).await.map_err(Stopped::Left)?;
        if let Some(standing) = &found.stands {
            let next_step = "ask for it again where a binary of the build's version runs";
            return Err(failed(standing.code, standing.detail.clone(), next_step));
        }
        self.enter(Phase::Comparing).await?;
        let writer = pool::connect_writer(&household.config.database, "public").await?;
        compare::forget(&writer, self.operation.id).await?;
        crash::point("verify.begun");
        let (reports, mut heard) = mpsc::channel(8);
        let mut verifying = household.served.0.verify(household.parts(found), ask, reports);
        let mut tick = tokio::time::interval(NOTE);
        let mut kept = Kept { writer, operation: self.operation.id, done: (0, None), is_full: false };
        let verified = loop {
            tokio::select! {
                verified = &mut verifying => break verified,
                Some(report) = heard.recv() => kept.take(report).await?,
                _ = tick.tick() => self.note(kept.done.0, kept.done.1).await?,
            }
        };
        let verification = verified.map_err(|error| error.downcast().map_or_else(Stopped::Left, stopped))?;
        while let Ok(report) = heard.try_recv() {
            kept.take(report).await?;
        }
        self.note(kept.done.0, kept.done.1).await?;
        self.put(&verification).await
    }

    fn ask(&self) -> Result<Ask, Stopped> {
        let asked: Result<Verify, _> = serde_json::from_value(self.operation.request.clone());
        let wanted = asked.map_err(|error| error.to_string()).and_then(|asked| {
            let (scope, basis) = asked.wanted().map_err(|error| error.to_string())?;
            Ok(Ask { scope, basis })
        });
        wanted.map_err(|why| failed("unknown_operation", why, "ask the version that knows it"))
    }

    async fn put(&mut self, found: &Verification) -> Result<(), Stopped> {
        let told = serde_json::to_value(found).expect("a verification is plain data");
        operations::put_comparison(&self.client, self.operation.id, &told).await?;
        if !found.is_clean() {
            let (view, operation) = (self.driver.household.name(), self.operation.id);
            let (differ, untold) = (found.comparison.compared - found.comparison.equal, found.untold);
            tracing::warn!(view, operation, differ, untold, "rows are not as they should be, or cannot be told");
        }
        Ok(())
    }
}

/// What is kept of a verification under way.
struct Kept {
    writer: Connection,
    operation: i64,
    /// How many keys are done, and how many there are.
    done: (i64, Option<i64>),
    /// Whether no more differences are kept.
    is_full: bool,
}

impl Kept {
    async fn take(&mut self, report: Report) -> Result<(), Stopped> {
        match report {
            Report::Done(keys, total) => {
                let number = |keys: u64| i64::try_from(keys).unwrap_or(i64::MAX);
                // Keys without a row are not among those that were counted.
                self.done = (number(keys), total.map(|total| number(total.max(keys))));
            }
            Report::Found(differences) if !self.is_full => {
                self.is_full = compare::keep(&self.writer, self.operation, &differences).await? == 0;
            }
            Report::Found(_) => {}
        }
        Ok(())
    }
}

/// What ends the operation, and what only this driver.
fn stopped(error: VerifyError) -> Stopped {
    match error {
        VerifyError::Database(error) => error.into(),
        VerifyError::Log(fault) => failed(fault.code, fault.detail, fault.next_step),
        VerifyError::NoSuchKey(_) => failed("key_not_found", error.to_string(), "see how the key is spelled"),
        VerifyError::Undeclared(_) => failed("not_verifiable", error.to_string(), "rebuild the view instead"),
        VerifyError::Settings(_) => {
            failed("settings_unusable", error.to_string(), "correct the settings, then restart")
        }
    }
}
