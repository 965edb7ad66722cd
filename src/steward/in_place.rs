//! A rebuild in place: the build that readers read is cleared and made anew from the log. Readers see nothing or a part of it
//! meanwhile, so it is for environments where nobody relies on the view.
//!
//! | died in | the next driver |
//! |---|---|
//! | `preflight` | begins anew; nothing was cleared |
//! | `loading`, `indexing` | the build is marked: it is cleared and loaded anew |
//! | `catching_up` | waits on |

use super::driver::{CLOSE, Course, NOTE, Stopped, failed};
use crate::builds::in_place;
use crate::crash;
use crate::domain::build::BuildId;
use crate::domain::operation::Phase;
use crate::store::sqlstate::describe_chain;
use crate::store::{build, operations, progress};

impl Course<'_> {
    /// Makes the active build anew.
    pub(super) async fn replay_in_place(&mut self) -> Result<(), Stopped> {
        let household = self.driver.household.clone();
        if !household.config.environment.allows_in_place() {
            let detail = "environment is \"production\" in the process that drives this".to_owned();
            return Err(failed("mode_not_allowed", detail, "ask for a rebuild beside the live build (mode `shadow`)"));
        }
        let own = self.active_build().await?;
        if self.operation.phase == Phase::Preflight {
            self.look_ahead(own).await?;
            in_place::mark(&self.client, own, &self.meaning, self.operation.id).await?;
            self.operation.phase = Phase::Loading;
            crash::point("rebuild.marked");
            self.driver.board.look_now();
        }
        if build::is_loading(&self.client, &self.source(own)).await? {
            // Whoever marked it may have had other settings.
            in_place::mark(&self.client, own, &self.meaning, self.operation.id).await?;
            self.load(own).await?;
        }
        self.enter(Phase::CatchingUp).await?;
        self.until_applied(own).await
    }

    /// The build that readers read, noted as the one that is made.
    async fn active_build(&mut self) -> Result<BuildId, Stopped> {
        if let Some(to) = self.operation.to_build {
            return Ok(self.id(to));
        }
        let view = self.driver.household.name();
        let Some(active) = progress::active_build(&self.client, view).await? else {
            return Err(failed("no_build", format!("view {view} has no build"), "run `streamview migrate`"));
        };
        operations::set_target(&self.client, self.operation.id, active, active).await?;
        self.operation.to_build = Some(active);
        Ok(self.id(active))
    }

    /// Waits until projectors have applied what the load has left.
    async fn until_applied(&mut self, own: BuildId) -> Result<(), Stopped> {
        let household = self.driver.household.clone();
        loop {
            let left = in_place::left(&self.client, &household.config, &household.served.1.topic, own).await;
            let left = left.map_err(|error| {
                let detail = describe_chain(error.chain());
                Stopped::Left(anyhow::anyhow!("it cannot be told how far the build is: {detail}"))
            })?;
            let done = build::consumed(&self.client, &self.source(own)).await?;
            self.note(done, Some(done + left)).await?;
            if left <= CLOSE {
                return Ok(());
            }
            tokio::time::sleep(NOTE).await;
        }
    }
}
